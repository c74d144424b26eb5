# Evaluates the module for a host with only the necessary options, without nixpkgs: a library in this
# file is in the place of nixpkgs'. It knows names, defaults and how they follow from each
# other; types, merging and assertions are evaluated where nixpkgs is (`nix flake check`).
#
# The same as `defaults` of nix/golden.nix, with which it is compared.
let
  module = ../../nix/module;

  any = _: { };
  lib = {
    mkOption = option: option // { isOption = true; };
    mkEnableOption = _: {
      isOption = true;
      default = false;
    };
    mkPackageOption = pkgs: name: _: {
      isOption = true;
      default = pkgs.${name};
    };
    literalExpression = text: text;
    trim = text: text;
    mkIf = condition: value: if condition then value else { };
    mkDefault = value: value;
    optional = condition: value: if condition then [ value ] else [ ];
    inherit (builtins) any attrValues mapAttrs;
    # Only ever asked for mkDefault.
    mapAttrsRecursive = _: set: set;
    filterAttrsRecursive =
      keep: set:
      let
        dropped = builtins.filter (name: !keep name set.${name}) (builtins.attrNames set);
        walk = value: if builtins.isAttrs value then lib.filterAttrsRecursive keep value else value;
      in
      builtins.mapAttrs (_: walk) (removeAttrs set dropped);
    types = {
      attrsOf = type: type;
      bool = { };
      deferredModule = { };
      either = _: any;
      enum = any;
      externalPath = { };
      float = { };
      ints = {
        between = _: any;
        positive = { };
        unsigned = { };
      };
      listOf = any;
      nonEmptyListOf = any;
      nullOr = any;
      package = { };
      path = { };
      port = { };
      raw = { };
      str = { };
      strMatching = any;
      submodule = file: { inherit file; };
      unspecified = { };
    };
  };

  # Every option with what was said, else with its default.
  filled =
    options: said:
    builtins.mapAttrs (
      name: option:
      if !(option ? isOption) then
        filled option (said.${name} or { })
      else if !(said ? ${name}) then
        option.default or (throw "${name} must be said, and is not")
      else if option ? type.file then
        builtins.mapAttrs (_: submodule option.type.file) said.${name}
      else
        said.${name}
    ) options;
  submodule =
    file: said:
    let
      config = filled (import file { inherit config lib; }).options said;
    in
    config;

  arguments = {
    inherit lib;
    pkgs.formats.toml = _: { type = { }; };
    config = {
      networking.hostName = "box";
      services.runner-controller =
        filled (import (module + "/options.nix") arguments).options.services.runner-controller
          {
            enable = true;
            github.url = "https://github.com/acme/widgets";
            github.tokenFile = "/run/agenix/github-runner";
            network.resolvers = [ "9.9.9.9" ];
            pools.ci = {
              labels = [ "ci" ];
              maxRunners = 4;
              image.directory = "/var/lib/runner-images/debian";
            };
          };
    };
  };
in
(import (module + "/settings.nix") arguments).config.services.runner-controller.settings
