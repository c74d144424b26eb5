# Option reference as text, evaluated from the module without a build.
{ lib, pkgs }:
let
  # The module alone, without evaluating the options that it sets elsewhere.
  evaluated = lib.evalModules {
    specialArgs = { inherit pkgs; };
    modules = [
      ./module/options.nix
      ./module/reboot.nix
      ./module/boot-check.nix
      {
        options.networking.hostName = lib.mkOption { internal = true; };
        options.warnings = lib.mkOption { internal = true; };
        config._module.check = false;
      }
    ];
  };
  container = lib.evalModules {
    specialArgs = {
      inherit pkgs;
      modulesPath = pkgs.path + "/nixos/modules";
    };
    modules = [
      { imports = [ (removeImports ./container.nix) ]; }
      { config._module.check = false; }
    ];
  };
  # The options of the file, without the NixOS profile that it imports.
  removeImports = file: args: {
    inherit (import file (args // { config = { }; })) options;
  };

  shown = option: option.visible && !option.internal;
  documented = options: lib.filter shown (lib.optionAttrSetToDocList options);

  code = text: "```nix\n${lib.trim text}\n```";
  value =
    title: literal:
    lib.optionalString (literal != null) (
      if literal._type or "" == "literalMD" then
        "\n${title}: ${literal.text}\n"
      else if lib.hasInfix "\n" literal.text then
        "\n${title}:\n\n${code literal.text}\n"
      else
        "\n${title}: `${literal.text}`\n"
    );
  # `mkEnableOption` begins each description with the same clause, which has no subject.
  clause = lib.removeSuffix "." (lib.mkEnableOption "").description;
  description =
    option: lib.replaceStrings [ clause ] [ "Enables " ] (lib.trim (option.description or ""));
  entry =
    option:
    ''

      ### `${option.name}`

      ${description option}

      Type: `${option.type}`
    ''
    + value "Default" (option.default or null)
    + value "Example" (option.example or null);
  section = options: lib.concatMapStrings entry (documented options);
in
''
  # Options of the NixOS module

  Made from the module by `nix eval --raw .#lib.options > docs/options.md`; a check compares them.

  ## The host
''
+ section evaluated.options.services
+ ''

  ## The containers

  For the modules in `services.runner-controller.pools.<name>.image.modules`, next to every option of
  NixOS itself.
''
+ section container.options.runner
