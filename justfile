# Commands by name; `just --list` is the manual. Each is a cargo alias, so that a Rust toolchain is
# enough without just.

# Show this list
default:
    @just --list

# Boot a test host and watch containers take jobs, die and be replaced (root, Debian 12 or 13)
demo *args:
    cargo demo {{args}}

# Run every test: lints, unit tests, and the system tests on a real systemd (root)
test *args:
    cargo verify {{args}}

# Measure a life against bare systemd-nspawn (root)
bench-life *args:
    cargo bench-life {{args}}

# Format the Rust sources
fmt:
    cargo fmt --all
