#!/bin/sh
# The longest line of a file: longest.sh FILE RESULT
set -eu
awk 'length($0) > length(line) { line = $0 } END { print line }' "$1" > "$2"
