# Where corpora are. "downloads": fetched into the recipe's own folder.

MINI_MULTILINGUAL=downloads
