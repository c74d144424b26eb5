# Recipes; `just --list` is the manual. They work from any directory below this one.
#
# hosts/addresses.json has the hosts and their addresses, and scripts/fleet.sh the actions on hosts. Other
# recipes are cargo aliases, so that a Rust toolchain is enough without just.

fleet := quote(justfile_directory() / "scripts/fleet.sh")

set positional-arguments := true

# Show this list
default:
    @just --list

# Deploy a host and wait until it takes jobs; running jobs do not notice (--drain waits for them first)
[group('deploy')]
apply host *args:
    @{{ fleet }} apply "$@"

# Deploy runner-01 and wait until it takes jobs; running jobs do not notice (--drain waits for them first)
[group('deploy')]
apply-runner-01 *args:
    @{{ fleet }} apply runner-01 "$@"

# Deploy runner-02 and wait until it takes jobs; running jobs do not notice (--drain waits for them first)
[group('deploy')]
apply-runner-02 *args:
    @{{ fleet }} apply runner-02 "$@"

# Deploy all hosts, each after the one before takes jobs; --drain waits for running jobs first
[group('deploy')]
apply-all *args:
    @{{ fleet }} apply-all "$@"

# Build a host's system without deploying it
[group('deploy')]
build host *args:
    @{{ fleet }} build "$@"

# Build runner-01's system without deploying it
[group('deploy')]
build-runner-01 *args:
    @{{ fleet }} build runner-01 "$@"

# Build runner-02's system without deploying it
[group('deploy')]
build-runner-02 *args:
    @{{ fleet }} build runner-02 "$@"

# Switch a host to its previous system and wait until it takes jobs
[group('deploy')]
rollback host:
    @{{ fleet }} rollback "$1"

# Switch runner-01 to its previous system and wait until it takes jobs
[group('deploy')]
rollback-runner-01:
    @{{ fleet }} rollback runner-01

# Switch runner-02 to its previous system and wait until it takes jobs
[group('deploy')]
rollback-runner-02:
    @{{ fleet }} rollback runner-02

# Wipe the machine at an address (1.2.3.4 or IP=1.2.3.4) and install a host on it
[group('deploy')]
bootstrap host ip *args:
    @{{ fleet }} bootstrap "$@"

# Wipe the machine at an address (1.2.3.4 or IP=1.2.3.4) and install runner-01 on it
[group('deploy')]
bootstrap-runner-01 ip *args:
    @{{ fleet }} bootstrap runner-01 "$@"

# Wipe the machine at an address (1.2.3.4 or IP=1.2.3.4) and install runner-02 on it
[group('deploy')]
bootstrap-runner-02 ip *args:
    @{{ fleet }} bootstrap runner-02 "$@"

# Show every host's pools, runners and problems
[group('operate')]
status-all:
    @{{ fleet }} status-all

# Show the use of space on every host, docker's storage included
[group('operate')]
storage-all:
    @{{ fleet }} storage-all

# Show logs of a host: all runners, a pool, a slot such as ci-3, or `controller`; -f follows
[group('operate')]
logs host *args:
    @{{ fleet }} logs "$@"

# Show logs of runner-01: all runners, a pool, a slot such as ci-3, or `controller`; -f follows
[group('operate')]
logs-runner-01 *args:
    @{{ fleet }} logs runner-01 "$@"

# Show logs of runner-02: all runners, a pool, a slot such as ci-3, or `controller`; -f follows
[group('operate')]
logs-runner-02 *args:
    @{{ fleet }} logs runner-02 "$@"

# Show which pools of a host serve which jobs, and try its webhook (--labels a,b; DRY_RUN=false sends a job)
[group('operate')]
test-webhook host *args:
    @{{ fleet }} test-webhook "$@"

# Show which pool of runner-01 serves a job for the label fuzz-a (DRY_RUN=false sends the job)
[group('operate')]
test-fuzz-a *args:
    @{{ fleet }} test-webhook runner-01 --labels fuzz-a "$@"

# Show which pool of runner-02 serves a job for the label fuzz-b (DRY_RUN=false sends the job)
[group('operate')]
test-fuzz-b *args:
    @{{ fleet }} test-webhook runner-02 --labels fuzz-b "$@"

# Let a host take no new jobs, and wait for running ones
[group('operate')]
drain host:
    @{{ fleet }} drain "$1"

# Let a drained host take jobs again
[group('operate')]
undrain host:
    @{{ fleet }} undrain "$1"

# Drain a host, reboot it, and wait until it takes jobs again
[group('operate')]
reboot host:
    @{{ fleet }} reboot "$1"

# Give a host another GitHub token (asks, or reads standard input) and check that GitHub accepts it
[group('secrets')]
set-token host *token:
    @{{ fleet }} set-token "$@"

# Give runner-01 another GitHub token (asks, or reads standard input) and check that GitHub accepts it
[group('secrets')]
set-token-runner-01 *token:
    @{{ fleet }} set-token runner-01 "$@"

# Give runner-02 another GitHub token (asks, or reads standard input) and check that GitHub accepts it
[group('secrets')]
set-token-runner-02 *token:
    @{{ fleet }} set-token runner-02 "$@"

# Encrypt a GitHub token (asks, or reads standard input) for the hosts without a deploy
[group('secrets')]
encrypt-token *token:
    @{{ fleet }} encrypt-token "$@"

# Take the newest runner of nixpkgs and nothing else; GitHub refuses old ones
[group('deploy')]
bump-runner:
    nix --extra-experimental-features 'nix-command flakes' flake update nixpkgs-runner --flake {{ quote(justfile_directory()) }}

# Edit a secret in $EDITOR
[group('secrets')]
agenix-edit file="github-runner.age":
    @{{ fleet }} agenix-edit "$1"

# Encrypt all secrets again after a change of keys in secrets.nix
[group('secrets')]
agenix-rekey:
    @{{ fleet }} agenix-rekey

# Check formatting, lints, scripts, Nix files and secrets; with Nix, evaluate every host and test too
[group('develop')]
check:
    cargo verify --only static
    secrets/check.sh
    if command -v nix >/dev/null; then scripts/check-nix.sh; fi

# Format the Rust and the Nix files
[group('develop')]
fmt:
    cargo fmt --all
    if command -v nix >/dev/null; then nix fmt; fi

# Run every test: lints, unit tests, and the system tests on a real systemd (root)
[group('develop')]
test *args:
    cargo verify "$@"

# Boot a test host and watch containers run jobs and be replaced (root, Debian 12 or 13)
[group('develop')]
demo *args:
    cargo demo "$@"

# Measure runners beside a bare systemd-nspawn (root)
[group('develop')]
bench-life *args:
    cargo bench-life "$@"

# Measure how soon a waiting job has a runner, and the cost of deliveries (root)
[group('develop')]
bench-demand *args:
    cargo bench-demand "$@"

# Measure many runners on one host (root)
[group('develop')]
bench-scale *args:
    cargo bench-scale "$@"
