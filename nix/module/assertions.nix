# Mistakes that evaluation can find, in the words of the options. `check-config` finds the others while
# the system is built.
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
    message = "${at}.${option}: write it as a string that names a file outside the Nix store, because every user of the host can read the store.";
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
        message = "${here}: rename the pool to 1 to 8 of a-z and 0-9, beginning with a letter, because its name is part of unit and link names.";
      }
      {
        assertion = wanted <= pool.maxRunners;
        message = "${here}: minIdle ${toString pool.minIdle} and minSpare ${toString pool.minSpare} do not fit; raise maxRunners to ${toString wanted}, or lower minIdle or minSpare.";
      }
      {
        assertion = pool.nix || pool.substituters == [ ] && pool.trustedPublicKeys == [ ];
        message = "${here}: set nix = true, or remove substituters and trustedPublicKeys, because only Nix in a job uses them.";
      }
      {
        assertion = pool.image.directory == null || pool.image.modules == [ ];
        message = "${here}.image: remove directory or modules, because only a NixOS image takes modules.";
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
        message = "${at}.github: set exactly one of tokenFile and app: tokenFile to a file with a GitHub token, such as config.age.secrets.github-runner.path, or app to the id and the key's file of a GitHub App.";
      }
      (outsideTheStore "github.app.keyFile" (cfg.github.app.keyFile or null))
      (outsideTheStore "github.tokenFile" cfg.github.tokenFile)
      (outsideTheStore "apiTokenFile" cfg.apiTokenFile)
      {
        assertion = cfg.apiTokenFile == null || cfg.prometheus.enable;
        message = "${at}.apiTokenFile: enable ${at}.prometheus too, or remove apiTokenFile, because the Unix socket checks the peer's user and takes no token.";
      }
      {
        assertion = shared == [ ];
        message =
          let
            inherit (lib.head shared) fst snd;
          in
          "${at}.pools.${snd.name}.offset: set it to ${toString fst.end} or more, because pool ${fst.name} has the places from ${toString snd.from} on.";
      }
      {
        assertion = needed <= room;
        message = "${at}.network.block: widen it: ${cfg.network.block} has ${toString room} places of four addresses, and the pools need ${toString needed}.";
      }
      {
        assertion = lib.mod cfg.network.uidBase 65536 == 0;
        message = "${at}.network.uidBase: set it to ${
          toString (cfg.network.uidBase - lib.mod cfg.network.uidBase 65536)
        }, a multiple of 65536.";
      }
      {
        assertion = cfg.openMetricsFirewall -> cfg.prometheus.enable;
        message = "${at}.openMetricsFirewall: enable ${at}.prometheus too, or remove openMetricsFirewall, because no program listens on that port.";
      }
      {
        # The firewall's table has an owner and persists; the kernel can do that since 6.9.
        assertion = lib.versionAtLeast kernel "6.9";
        message = "boot.kernelPackages: use Linux 6.9 or later instead of ${kernel}, because the firewall of ${at} needs it.";
      }
      {
        assertion = lib.versionAtLeast config.systemd.package.version "257";
        message = "systemd.package: use systemd 257 or later instead of ${config.systemd.package.version}, because ${at} needs it.";
      }
    ]
    ++ lib.concatLists (lib.mapAttrsToList ofPool cfg.pools);

    warnings =
      lib.optional (config.virtualisation.docker.enable && !config.networking.nftables.enable) ''
        Docker on this host drops forwarded traffic, the runners' traffic included. Accept interfaces
        rc-* in chain DOCKER-USER, or remove virtualisation.docker and set pools.<name>.docker instead.
      ''
      ++ lib.optional (cfg.openMetricsFirewall && lib.hasPrefix "127." cfg.prometheus.address) ''
        ${at}.openMetricsFirewall opens a port that answers only to this host; set
        ${at}.prometheus.address to another address.
      '';
  };
}
