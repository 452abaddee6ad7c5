#!/bin/sh
# Manual pages of all commands, made from their --help: pip install click-man, then  manpages.sh ~/.local/share/man/man1
set -eu
mkdir -p "$1"
click-man --target "$1" crossdiff
# The lines of examples stay lines: click marks their beginning by a backspace character.
sed -i -e 's/^\x08$/.EX/' -e '/^\.SH OPTIONS/i .EE' "$1"/crossdiff*.1
