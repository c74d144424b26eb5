#!/bin/bash
# Attack: let Nix fetch what the job itself may not reach. A fixed-output derivation is the one kind
# of build that has a network, and it runs as another user: under a daemon of the host's, in the
# host's network.
#
# fetch.sh URL…  prints "URL open" or "URL closed" for each, once for Nix's own downloader and once for
# a program in the build's sandbox. The hash that is asked for is nobody's, so whatever is fetched, Nix
# says that it differs.
#
# The wall: the container has a separate daemon, in the container's network, behind the firewall.
set -u
shell=$(echo /nix/store/*-testbed-busybox)
hash=0000000000000000000000000000000000000000000000000000000000000000

builtin() {
    echo "derivation { name = \"fetched\"; system = \"builtin\"; builder = \"builtin:fetchurl\";
        url = \"$1\"; outputHash = \"$hash\"; outputHashAlgo = \"sha256\"; outputHashMode = \"flat\"; }"
}
program() {
    echo "derivation { name = \"fetched-by-wget\"; system = builtins.currentSystem;
        builder = \"\${builtins.storePath $shell}/bin/busybox\";
        args = [ \"wget\" \"-T\" \"2\" \"-O\" (placeholder \"out\") \"$1\" ];
        outputHash = \"$hash\"; outputHashAlgo = \"sha256\"; outputHashMode = \"flat\"; }"
}
try() {
    local said
    said=$(nix-build --no-out-link --timeout 6 --expr "$($1 "$2")" 2>&1)
    case $said in
        *"hash mismatch"*) echo "$1 $2 open" ;;
        *) echo "$1 $2 closed" ;;
    esac
}
for url; do
    try builtin "$url" &
    try program "$url" &
done
wait
