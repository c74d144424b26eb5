#!/usr/bin/env bash
# Refuses plain-text secrets.
#
#   check.sh              this directory: every *.age is age's, and nothing looks like a token or a key
#   check.sh --tree DIR   any tree, such as what a host's /etc is built from: no tokens, no keys
#
# Ends with 1 and names the files; never prints what it found.
set -euo pipefail

# GitHub's prefixes (https://github.blog/engineering/behind-githubs-new-authentication-token-formats/),
# private keys in PEM, age's own.
secret='gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{22,}|-----BEGIN ([A-Z]+ )*PRIVATE KEY-----|AGE-SECRET-KEY-1[0-9A-Z]{20,}'
bad=0

refuse() {
    echo "$1" >&2
    bad=1
}

no_plain_text() {
    local found
    # Links to files, of which trees in the Nix store are made, but not to directories: a whole nixpkgs
    # may lie behind one, with the keys of its tests.
    found=$(find "$1/" -xtype f -exec grep -I -l -s -E -e "$secret" -- {} + || true)
    if [ -n "$found" ]; then
        while IFS= read -r file; do
            refuse "$file: holds a secret in plain text. Revoke it, then encrypt the new one with agenix."
        done <<<"$found"
    fi
}

case ${1-} in
"")
    here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
    no_plain_text "$here"
    for file in "$here"/*; do
        case $file in
        *.age)
            read -r -n 29 first <"$file" || true
            case $first in
            age-encryption.org/v1* | "-----BEGIN AGE ENCRYPTED FILE"*) ;;
            *) refuse "$file: not encrypted by age. Write it with: agenix -e $(basename "$file")" ;;
            esac
            ;;
        */README.md | */check.sh | */secrets.nix) ;;
        *) refuse "$file: only *.age files belong here" ;;
        esac
    done
    ;;
--tree)
    no_plain_text "${2:?which directory}"
    ;;
*)
    sed -n '2,8p' "$0"
    exit 2
    ;;
esac
exit $bad
