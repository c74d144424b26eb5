#!/usr/bin/env bash
# Evaluates all outputs of the flake. Other platforms and each VM test have a process, so that memory stays below
# 6 GB. Builds nothing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export NIX_CONFIG="extra-experimental-features = nix-command flakes
${NIX_CONFIG-}"
nix flake check --no-build

drvs='builtins.mapAttrs (_: output: output.drvPath)'
for output in checks.aarch64-linux packages.aarch64-linux devShells.aarch64-linux devShells.aarch64-darwin; do
    nix eval --json ".#$output" --apply "$drvs" >/dev/null || {
        echo "error: $output does not evaluate; see above" >&2
        exit 1
    }
done

names=$(nix eval --raw .#legacyPackages.x86_64-linux.vm-tests --apply 'tests: builtins.concatStringsSep "\n" (builtins.attrNames tests)')
for name in $names; do
    nix eval --raw ".#legacyPackages.x86_64-linux.vm-tests.$name.drvPath" >/dev/null || {
        echo "error: the VM test $name does not evaluate; see above" >&2
        exit 1
    }
done
