#!/bin/bash
# Attack: read a store path that an earlier job of the same pool built, knowing its name.
#
# read.sh PATH  ends with 0 if any way leads to it: the path itself, the container's Nix, its
# database, a build that takes it for an input.
#
# The wall: a store's upper half and its database are the life's own, and end with it.
set -u
path=$1 name=${1##*/}
cat "$path" 2>/dev/null && exit 0
nix-store --realise "$path" >/dev/null 2>&1 && cat "$path" && exit 0
nix-store --query --hash "$path" 2>/dev/null && exit 0
nix-store --dump-db 2>/dev/null | grep -F "$name" && exit 0
nix-store --export "$path" >/dev/null 2>&1 && exit 0
find /nix -name "*${name#*-}*" 2>/dev/null | grep . && exit 0
nix-build --no-out-link --expr "builtins.readFile (builtins.storePath $path)" 2>/dev/null && exit 0
echo "nothing of $name"
exit 1
