# Snippets of docs/nixos-recipes.md. Each file in snippets/ is one, and the page contains its text.
#
# Modules of other flakes are stubs here, which have the options that a snippet uses. Snippets of options
# of nixpkgs are also part of the whole host in module-checks.nix.
{
  inputs,
  lib,
  system,
}:
let
  page = builtins.readFile ../docs/nixos-recipes.md;
  files = lib.attrNames (builtins.readDir ./snippets);
  missing = lib.filter (
    file: !lib.hasInfix "```nix\n${builtins.readFile (./snippets + "/${file}")}```" page
  ) files;

  # Stub of the secrets of agenix, agenix-rekey or sops-nix, at the paths that these use.
  secrets =
    directory:
    lib.mkOption {
      default = { };
      type = lib.types.attrsOf (
        lib.types.submodule (
          { name, ... }:
          {
            freeformType = lib.types.lazyAttrsOf lib.types.raw;
            options.path = lib.mkOption { default = "${directory}/${name}"; };
          }
        )
      );
    };
  stubs.options = {
    age.secrets = secrets "/run/agenix";
    sops.secrets = secrets "/run/secrets";
  };

  # Values of the configuration file by path, and other settings of the host that a snippet is for.
  modules = {
    agenix-rekey.gives."github.token_file" = "/run/agenix/github-runner";
    cachix.gives."pools.ci.substituters" = [ "https://acme.cachix.org" ];
    from-github-nix-ci.gives = {
      "pools.ci.labels" = [
        "box"
        system
      ];
      "pools.ci.max_runners" = 10;
    };
    from-nix-github-runner = {
      # Beside another pool.
      beside.pools.bench.offset = 4;
      gives = {
        "pools.bench.binds" = [
          {
            from = "/data/SOURCES_PATH";
            to = "/data/SOURCES_PATH";
            read_only = true;
          }
          {
            from = "/data/BASE_CACHE";
            to = "/data/BASE_CACHE";
            read_only = false;
          }
          {
            from = "/data/ccache";
            to = "/var/cache/ccache";
            read_only = false;
          }
        ];
        "pools.bench.environment" = {
          SOURCES_PATH = "/data/SOURCES_PATH";
          BASE_CACHE = "/data/BASE_CACHE";
          CCACHE_DIR = "/var/cache/ccache";
        };
        "pools.bench.min_spare" = 0;
      };
    };
    from-shared-user.gives = {
      "pools.ci.docker" = true;
      "pools.ci.nix" = true;
      "pools.ci.runner_group" = "bare-metal";
      "pools.ci.limits.user_namespaces" = 15000;
    };
    github-app = {
      beside.github.tokenFile = lib.mkForce null;
      gives."github.app" = {
        id = "Iv23liExample";
        key_file = "/run/agenix/github-app";
      };
    };
    impermanence.gives.layer_dir = "/persist/runner-layers";
    jobs-cache.gives."pools.ci.allow" = [ "10.0.0.5:5000" ];
    package-cache.gives.host = "box";
    remote-builder.gives."pools.ci.allow" = [ "10.0.0.6:22" ];
    several-scopes = {
      gives = {
        "pools.org.scope" = "umbrella";
        "scopes.gadgets.token_file" = "/run/agenix/github-gadgets";
      };
    };
    sops-nix.gives."github.token_file" = "/run/secrets/github-runner";
  };

  # Other tools take a host of this repository, or a module like the template's.
  colmena =
    (import ./snippets/colmena.nix (
      inputs
      // {
        runner-controller = inputs.self;
        colmena.lib.makeHive = lib.id;
      }
    )).colmenaHive.runner-01;
  deploy =
    (import ./snippets/deploy-rs.nix (
      inputs // { deploy-rs.lib.x86_64-linux.activate.nixos = host: host.config.networking.hostName; }
    )).deploy.nodes.runner-01;
in
{
  inherit modules stubs;
  # For a whole host, with real options of nixpkgs.
  ofNixpkgs = [
    # Releases with harmonia 2 have other names.
    (
      { options, ... }:
      {
        config = lib.optionalAttrs (options.services.harmonia ? cache) (import ./snippets/jobs-cache.nix);
      }
    )
    ./snippets/package-cache.nix
    ./snippets/remote-builder.nix
  ];
  wrong =
    map (file: "docs/nixos-recipes.md lacks the text of nix/snippets/${file}") missing
    ++ lib.optional (
      !lib.elem inputs.self.nixosModules.default colmena.imports
    ) "the snippet for colmena lacks the module"
    ++ lib.optional (
      deploy.profiles.system.path != "runner-01"
    ) "the snippet for deploy-rs does not deploy runner-01";
}
