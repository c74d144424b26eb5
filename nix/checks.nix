# Checks of `nix flake check`: some only evaluate, the others build.
{ inputs, system }:
let
  inherit (inputs) self nixpkgs;
  inherit (nixpkgs) lib;
  pkgs = nixpkgs.legacyPackages.${system}.extend self.overlays.default;
  packages = self.packages.${system};

  crate =
    name: inputs: phase:
    packages.runner-controller.overrideAttrs (old: {
      pname = "runner-controller-${name}";
      # The whole repository, because tests also read files outside the crates.
      src = self;
      nativeBuildInputs = old.nativeBuildInputs ++ inputs;
      buildPhase = phase;
      installPhase = "touch $out";
      dontFixup = true;
    });

  # Compares a recorded file with the result of evaluation.
  recorded =
    file: read: now: command:
    lib.throwIf (read (builtins.readFile file) != now)
      "${baseNameOf file} differs from evaluation; record it anew: ${command}"
      (pkgs.writeText (baseNameOf file) (builtins.toJSON now));
in
{
  package = packages.runner-controller;
  stand-ins = packages.github-sim;

  clippy = crate "clippy" [ pkgs.clippy ] ''
    cargo clippy --offline --workspace --all-targets -- --deny warnings
  '';
  rustfmt = crate "rustfmt" [ pkgs.rustfmt ] "cargo fmt --all --check";
  tests =
    crate "tests"
      [
        pkgs.bash
        pkgs.cargo-nextest
      ]
      ''
        cargo nextest run --offline --package pool --package status --package runner-controller --package github-sim --no-fail-fast
      '';

  nixfmt = pkgs.runCommand "nixfmt" { nativeBuildInputs = [ pkgs.nixfmt ]; } ''
    find ${self} -name '*.nix' -exec nixfmt --check {} +
    touch $out
  '';
  deadnix = pkgs.runCommand "deadnix" { nativeBuildInputs = [ pkgs.deadnix ]; } ''
    deadnix --fail --no-lambda-pattern-names ${self}
    touch $out
  '';
  secrets = pkgs.runCommand "secrets" { nativeBuildInputs = [ pkgs.bash ]; } ''
    bash ${self}/secrets/check.sh
    touch $out
  '';

  # Layout of a machine without UEFI; the hosts have the other one.
  disk =
    let
      device = "/dev/disk/by-id/disk";
      inherit
        (lib.nixosSystem {
          modules = [
            inputs.disko.nixosModules.disko
            self.nixosModules.default
            (import ../hosts/disk.nix {
              inherit device;
              firmware = "bios";
            })
            {
              nixpkgs.pkgs = pkgs;
              networking.hostName = "box";
              system.stateVersion = "26.05";
            }
          ];
        })
        config
        ;
      boots = {
        grub = config.boot.loader.grub.devices;
        systemd-boot = config.boot.loader.systemd-boot.enable;
        boot = config.fileSystems ? "/boot";
        root = config.fileSystems."/".device;
        failed = map (entry: entry.message) (lib.filter (entry: !entry.assertion) config.assertions);
      };
    in
    lib.throwIf
      (
        boots != {
          grub = [ device ];
          systemd-boot = false;
          boot = false;
          root = "/dev/disk/by-partlabel/disk-main-root";
          failed = [ ];
        }
      )
      "hosts/disk.nix: a machine without UEFI does not boot: ${builtins.toJSON boots}"
      (pkgs.writeText "disk" (builtins.toJSON boots));

  # The template, with the inputs of this flake. Its placeholders are refused, and a host without them evaluates.
  template =
    let
      template = (import ./template/flake.nix).outputs (inputs // { runner-controller = self; });
      # Images take half a gigabyte, and the module's check has one like that of the template.
      host = template.nixosConfigurations.box.extendModules {
        modules = [
          {
            services.runner-controller.build.containers = lib.mkForce {
              ci.config.assertions = [ ];
              ci.config.system.build.toplevel = pkgs.emptyDirectory;
            };
          }
        ];
      };
      placeholders = lib.filter (entry: !entry.assertion) host.config.assertions;
      changed = host.extendModules {
        modules = [
          {
            networking.hostName = lib.mkForce "runner";
            services.runner-controller.github.url = lib.mkForce "https://github.com/umbrella/widgets";
            disko.devices.disk.main.device = lib.mkForce "/dev/disk/by-id/disk";
            users.users.root.openssh.authorizedKeys.keys = [ "ssh-ed25519 AAAA operator" ];
          }
        ];
      };
    in
    lib.throwIf (lib.length placeholders != 3)
      "nix/template/box.nix: 3 placeholders are not refused, but ${
        toString (map (entry: entry.message) placeholders)
      }"
      (
        pkgs.writeText "template" (
          builtins.unsafeDiscardStringContext changed.config.system.build.toplevel.drvPath
        )
      );

  module = import ./module-checks.nix { inherit inputs pkgs system; };
}
// lib.optionalAttrs (system == "x86_64-linux") {
  options =
    recorded ../docs/options.md lib.id self.lib.options
      "nix eval --raw .#lib.options > docs/options.md";
  golden =
    recorded ./golden/runner-01.json builtins.fromJSON self.lib.golden
      "nix eval --json .#lib.golden | jq . > nix/golden/runner-01.json";
}
