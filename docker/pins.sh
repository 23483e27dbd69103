#!/bin/sh
# Prints requirements.txt as constraints: its pins alone, torch apart, which each image chooses.
set -eu
sed -e 's/[[:space:]]*#.*$//' "$1" | grep '==' | grep -v '^torch'
