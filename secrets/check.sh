#!/usr/bin/env bash
# Refuses secrets in plain text.
#
#   check.sh              checks this directory: age encrypted every *.age, and no file contains a token or key
#   check.sh --tree DIR   checks any tree, such as the source of a host's /etc, for tokens and keys
#
# Exits with 1 and names the files. It never prints a secret.
set -euo pipefail

# GitHub's prefixes (https://github.blog/engineering/behind-githubs-new-authentication-token-formats/),
# private keys in PEM, age's secret keys.
secret='gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{22,}|-----BEGIN ([A-Z]+ )*PRIVATE KEY-----|AGE-SECRET-KEY-1[0-9A-Z]{20,}'
bad=0

refuse() {
    echo "$1" >&2
    bad=1
}

no_plain_text() {
    local found
    # Follows links to files, of which trees in the Nix store consist. It does not follow links to
    # directories, because one may lead to a whole nixpkgs with the keys of its tests.
    found=$(find "$1/" -xtype f -exec grep -I -l -s -E -e "$secret" -- {} + || true)
    if [ -n "$found" ]; then
        while IFS= read -r file; do
            refuse "$file: contains a secret in plain text; revoke it and encrypt a new one with agenix"
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
            *) refuse "$file: is not encrypted by age; write it with: agenix -e $(basename "$file")" ;;
            esac
            ;;
        */README.md | */check.sh | */secrets.nix) ;;
        *) refuse "$file: does not belong here; only *.age files do" ;;
        esac
    done
    ;;
--tree)
    no_plain_text "${2:?name a directory}"
    ;;
*)
    sed -n '2,8p' "$0"
    exit 2
    ;;
esac
exit $bad
