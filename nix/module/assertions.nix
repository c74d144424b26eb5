# What cannot be right. `check-config` says the rest while the system is built; this is what can be said
# sooner, in the words of the options.
{ config, lib, ... }:
let
  cfg = config.services.runner-controller;
  at = "services.runner-controller";
  kernel = config.boot.kernelPackages.kernel.version;

  places = lib.sort (a: b: a.from < b.from) (
    lib.mapAttrsToList (name: pool: {
      inherit name;
      from = pool.offset;
      end = pool.offset + pool.maxRunners;
    }) cfg.pools
  );
  pairs = if places == [ ] then [ ] else lib.zipLists places (lib.tail places);
  shared = lib.filter ({ fst, snd }: snd.from < fst.end) pairs;

  prefix = lib.toIntBase10 (lib.last (lib.splitString "/" cfg.network.block));
  room = lib.foldl' (sum: _: 2 * sum) 1 (lib.range 1 (30 - prefix));
  needed = lib.foldl' (most: place: lib.max most place.end) 0 places;

  outsideTheStore = option: file: {
    assertion =
      file == null || !builtins.isPath file && !lib.hasPrefix (builtins.storeDir + "/") (toString file);
    message = "${at}.${option}: write it as a string that names a file outside the Nix store; everybody on the host can read what is in it.";
  };

  ofPool =
    name: pool:
    let
      here = "${at}.pools.${name}";
      wanted = pool.minIdle + pool.minSpare;
    in
    [
      {
        assertion = builtins.match "[a-z][a-z0-9]{0,7}" name != null;
        message = "${here}: rename the pool to 1 to 8 of a-z and 0-9, beginning with a letter; it is part of unit and link names.";
      }
      {
        assertion = wanted <= pool.maxRunners;
        message = "${here}: minIdle ${toString pool.minIdle} and minSpare ${toString pool.minSpare} do not fit; raise maxRunners to ${toString wanted}, or lower one of them.";
      }
      {
        assertion = pool.nix || pool.substituters == [ ] && pool.trustedPublicKeys == [ ];
        message = "${here}: set nix = true, or remove substituters and trustedPublicKeys; without it no Nix would ask them.";
      }
      {
        assertion = pool.docker && pool.layer.kind == "tmpfs" -> lib.versionAtLeast kernel "6.6";
        message = "${here}.layer.kind: set it to \"disk\"; Docker's storage on a tmpfs takes Linux 6.6, and this host's is ${kernel}.";
      }
      {
        assertion = pool.image.directory == null || pool.image.modules == [ ];
        message = "${here}.image: remove either directory or modules; only a NixOS image takes modules.";
      }
    ];
in
{
  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = cfg.pools != { };
        message = "${at}.pools: add a pool, such as pools.ci = { labels = [ \"self-hosted\" \"ci\" ]; maxRunners = 4; };";
      }
      {
        assertion = (cfg.github.tokenFile != null) != (cfg.github.app != null);
        message = "${at}.github: set exactly one of tokenFile, to a file with a GitHub token such as config.age.secrets.github-runner.path, and app, to the id and the key's file of a GitHub App.";
      }
      (outsideTheStore "github.app.keyFile" (cfg.github.app.keyFile or null))
      (outsideTheStore "github.tokenFile" cfg.github.tokenFile)
      (outsideTheStore "apiTokenFile" cfg.apiTokenFile)
      {
        assertion = cfg.apiTokenFile == null || cfg.prometheus.enable;
        message = "${at}.apiTokenFile: enable ${at}.prometheus too, or remove this; the Unix socket asks who it is and takes no token.";
      }
      {
        assertion = shared == [ ];
        message =
          let
            inherit (lib.head shared) fst snd;
          in
          "${at}.pools.${snd.name}.offset: set it to ${toString fst.end} or more; its places from ${toString snd.from} on are those of pool ${fst.name}.";
      }
      {
        assertion = needed <= room;
        message = "${at}.network.block: widen it; ${cfg.network.block} has ${toString room} places of four addresses, and the pools take ${toString needed}.";
      }
      {
        assertion = lib.mod cfg.network.uidBase 65536 == 0;
        message = "${at}.network.uidBase: set it to ${
          toString (cfg.network.uidBase - lib.mod cfg.network.uidBase 65536)
        }, a multiple of 65536.";
      }
      {
        assertion = cfg.openMetricsFirewall -> cfg.prometheus.enable;
        message = "${at}.openMetricsFirewall: enable ${at}.prometheus too, or remove this; nothing listens on that port.";
      }
      {
        assertion = lib.versionAtLeast config.systemd.package.version "257";
        message = "systemd.package: ${at} needs systemd 257 or later, and this is ${config.systemd.package.version}.";
      }
    ]
    ++ lib.concatLists (lib.mapAttrsToList ofPool cfg.pools);

    warnings =
      lib.optional (config.virtualisation.docker.enable && !config.networking.nftables.enable) ''
        Docker on this host drops what the host forwards, the runners' traffic included. Add rules that
        let interfaces rc-* out to chain DOCKER-USER, or give jobs a Docker of their own instead.
      ''
      ++ lib.optional (cfg.openMetricsFirewall && lib.hasPrefix "127." cfg.prometheus.address) ''
        ${at}.openMetricsFirewall opens a port on which only this host itself is answered; set
        ${at}.prometheus.address.
      '';
  };
}
