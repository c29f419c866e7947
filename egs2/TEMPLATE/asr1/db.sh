# shellcheck shell=bash
# shellcheck disable=SC2034  # the recipes use these
# Where corpora are. "downloads": fetched into the recipe's own folder.

MINI_MULTILINGUAL=downloads
