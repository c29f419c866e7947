# shellcheck shell=bash
# shellcheck disable=SC2034  # the recipes use these
# Where corpora are; the environment and options of run.sh win. "downloads": fetched into the recipe's
# own folder, or put there by hand.

MINI_MULTILINGUAL=downloads
COMMONVOICE=${COMMONVOICE:-downloads} # has cv-corpus-<version>-<date>/<locale>, or its archives; licence: by hand
CV_VERSION=${CV_VERSION:-}            # its release, e.g. 21.0; empty: the newest that is there
FLEURS=${FLEURS:-downloads}           # has <name> or <name>.tar.gz, for example ca_es
MLS=${MLS:-downloads}                 # has mls_<language>, mls_<language>.tar.gz or mls_<language>_opus
LIBRISPEECH=${LIBRISPEECH:-downloads} # has LibriSpeech, or archives such as train-clean-100.tar.gz
AISHELL=${AISHELL:-downloads}         # has data_aishell or data_aishell.tgz
