# `pools`, each by itself.
{ config, lib, ... }:
let
  cfg = config.services.runner-controller;
  at = "services.runner-controller";
  values = import ../values.nix { inherit lib; };

  minute = 60;
  hour = 60 * minute;
  day = 24 * hour;
  MiB = 1024 * 1024;

  # Returns an assertion that a duration is in a range. Other units than these are the program's to check.
  duration =
    option: given: least: most:
    let
      seconds = values.seconds given;
      text = if most >= day then "${toString (most / day)} d" else "${toString (most / minute)} min";
    in
    {
      assertion = seconds == null || seconds >= least && seconds <= most;
      message = "${at}.${option}: set it to ${toString least} s to ${text} instead of \"${given}\".";
    };

  never =
    map
      (entry: {
        block = values.block 3 16 entry.block;
        inherit (entry) reason;
      })
      [
        {
          block = "0.0.0.0/8";
          reason = "is not an address of a host";
        }
        {
          block = "127.0.0.0/8";
          reason = "is loopback, which is the container itself";
        }
        {
          block = "169.254.0.0/16";
          reason = "is link-local, where a cloud hands out the credentials of the host";
        }
        {
          block = "224.0.0.0/3";
          reason = "is multicast or reserved";
        }
        {
          block = cfg.network.block;
          reason = "has addresses in network.block, the addresses of containers";
        }
      ];
  overlap =
    a: b: a != null && b != null && (values.contains a b.first || values.contains b a.first);

  # Returns the reason if an entry of `allow` is wrong.
  wrongEntry =
    text:
    let
      destination = values.destination text;
      bad = lib.filter (range: overlap range.block destination.block) never;
    in
    if destination.protocol == null then
      "is not ADDRESS:PORT, with /tcp or /udp after it"
    else if destination.block == null then
      "does not begin with an IPv4 address or block"
    else if destination.port == null then
      "does not have a port from 1 to 65535"
    else if bad != [ ] then
      (lib.head bad).reason
    else
      null;

  wrongLabel =
    text:
    builtins.match "[^,[:cntrl:]]{1,256}" text == null
    || builtins.match "[[:space:]].*|.*[[:space:]]" text != null;

  wrongKey =
    text:
    let
      parts = builtins.match "([A-Za-z0-9._-]+):([A-Za-z0-9+/]*=*)" text;
      length = lib.stringLength (lib.last parts);
    in
    if parts == null then
      "is not a name, a colon and a key"
    else if length == 88 then
      "is secret, and every reader of the configuration can sign with it; make a new one"
    else if length != 44 then
      "does not have a key of 32 bytes"
    else
      null;

  named = wrong: list: lib.filter (text: wrong text != null) list;

  ofPool =
    name: pool:
    let
      here = "${at}.pools.${name}";
      wanted = pool.minIdle + pool.minSpare;
      layer = values.bytes pool.layer.size;
      memory = values.bytes pool.limits.memory;
      lower = map lib.toLower pool.labels;
      wrongLabels = lib.filter wrongLabel pool.labels;
      wrongEntries = named wrongEntry pool.allow;
      tcp = lib.filter (entry: !lib.hasSuffix "/udp" entry) pool.allow;
      wrongUrls = lib.filter (
        url: builtins.match "https?://[^/@#\"'\\<> [:cntrl:]]+(/[^@#\"'\\<> [:cntrl:]]*)?" url == null
      ) pool.substituters;
      wrongKeys = named wrongKey pool.trustedPublicKeys;
      registration = values.seconds pool.timeouts.registration;
      reconcile = values.seconds cfg.reconcile;
      cores = option: value: {
        assertion = value == null || value >= 0.05 && value <= 1024;
        message = "${here}.${option}: set it to 0.05 to 1024 cores instead of ${toString value}.";
      };
      atLeastOne = kind: less: one: {
        assertion = !less;
        message = "${here}.total.${kind}: raise it to limits.${kind}, ${one}, or more, because all runners together may not use less than one.";
      };
    in
    [
      {
        assertion = builtins.match "[a-z][a-z0-9]{0,7}" name != null;
        message = "${here}: rename the pool to 1 to 8 of a-z and 0-9, beginning with a letter, because its name is part of unit and link names.";
      }
      {
        assertion = lib.length pool.labels <= 100;
        message = "${here}.labels: keep 100 of ${toString (lib.length pool.labels)} labels, because GitHub takes no more.";
      }
      {
        assertion = wrongLabels == [ ];
        message = "${here}.labels: change \"${lib.head wrongLabels}\": a label has 1 to 256 characters without a comma, a control character or space at an end.";
      }
      {
        assertion = lib.allUnique lower;
        message = "${here}.labels: list each label once, because GitHub ignores case.";
      }
      {
        assertion = wanted <= pool.maxRunners;
        message = "${here}: minIdle ${toString pool.minIdle} and minSpare ${toString pool.minSpare} do not fit; raise maxRunners to ${toString wanted}, or lower minIdle or minSpare.";
      }
      {
        assertion = pool.minIdle > 0 || pool.demand != "fixed";
        message = "${here}: raise minIdle to 1, or set demand = \"webhook\" or \"queue\", because a pool without an idle runner gets no job.";
      }
      {
        assertion = pool.demand != "webhook" || cfg.webhook != null;
        message = "${here}.demand: set ${at}.webhook, because \"webhook\" needs GitHub's deliveries.";
      }
      {
        assertion = pool.nix || pool.substituters == [ ] && pool.trustedPublicKeys == [ ];
        message = "${here}: set nix = true, or remove substituters and trustedPublicKeys, because only Nix in a job uses them.";
      }
      {
        assertion = wrongUrls == [ ];
        message = "${here}.substituters: replace ${toString (lib.length wrongUrls)} of the URLs with \"https://cache.example.org\": https:// or http://, without a password, a fragment or a quote.";
      }
      {
        assertion = wrongKeys == [ ];
        # The key is not repeated, because it may be secret.
        message = "${here}.trustedPublicKeys: replace the key that begins with \"${
          lib.head (lib.splitString ":" (lib.head wrongKeys))
        }\", which ${wrongKey (lib.head wrongKeys)}.";
      }
      {
        assertion =
          pool.image.directory == null || pool.image.modules == [ ] && pool.image.specialArgs == { };
        message = "${here}.image: remove directory, or modules and specialArgs, because only a NixOS image takes modules.";
      }
      {
        assertion = layer >= 16 * MiB;
        message = "${here}.layer.size: raise it to 16 MiB or more, because a container does not boot in ${pool.layer.size}.";
      }
      {
        assertion = memory >= 64 * MiB;
        message = "${here}.limits.memory: raise it to 64 MiB or more, because a container does not boot in ${pool.limits.memory}.";
      }
      {
        assertion = pool.layer.kind == "disk" || layer <= memory;
        message = "${here}.layer.size: lower it to limits.memory, ${pool.limits.memory}, raise limits.memory to ${pool.layer.size}, or set layer.kind = \"disk\", because a layer in memory counts as the container's memory.";
      }
      (cores "limits.cpu" pool.limits.cpu)
      (cores "total.cpu" pool.total.cpu)
      (atLeastOne "memory" (
        pool.total.memory != null && values.bytes pool.total.memory < memory
      ) pool.limits.memory)
      (atLeastOne "cpu" (
        pool.total.cpu != null && pool.limits.cpu != null && pool.total.cpu < pool.limits.cpu
      ) (toString pool.limits.cpu))
      (atLeastOne "tasks" (pool.total.tasks != null && pool.total.tasks < pool.limits.tasks) (
        toString pool.limits.tasks
      ))
      (duration "pools.${name}.timeouts.boot" pool.timeouts.boot 1 hour)
      (duration "pools.${name}.timeouts.registration" pool.timeouts.registration 1 hour)
      (duration "pools.${name}.timeouts.spareAge" pool.timeouts.spareAge minute (30 * day))
      (duration "pools.${name}.timeouts.idleAge" pool.timeouts.idleAge minute (30 * day))
      (duration "pools.${name}.timeouts.job" pool.timeouts.job 1 (5 * day))
      (duration "pools.${name}.scaleDownAfter" pool.scaleDownAfter 0 day)
      (duration "pools.${name}.timeouts.stop" pool.timeouts.stop 1 hour)
      {
        assertion = registration == null || reconcile == null || registration >= 2 * reconcile;
        message = "${here}.timeouts.registration: raise it to twice reconcile or more, because the daemon sees an online runner at a reconcile, every ${cfg.reconcile}, and may miss it once.";
      }
      {
        assertion = lib.length pool.allow <= 64;
        message = "${here}.allow: keep 64 of ${toString (lib.length pool.allow)} entries, with networks instead of single addresses, or allow a proxy.";
      }
      {
        assertion = wrongEntries == [ ];
        message = "${here}.allow: change \"${lib.head wrongEntries}\", which ${wrongEntry (lib.head wrongEntries)}; an entry is such as \"10.0.0.5:443\" or \"10.1.2.3:53/udp\".";
      }
      {
        assertion = pool.egress == "internet" || tcp != [ ];
        message = "${here}.allow: add a tcp port, because with egress = \"${pool.egress}\" a runner reaches GitHub through this list alone.";
      }
      {
        assertion = !lib.hasPrefix "${builtins.storeDir}/" "${toString pool.workFolder}/";
        message = "${here}.workFolder: set it to a directory that a job can write, such as \"/home/runner/work\", because the store is read-only.";
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
      (duration "reconcile" cfg.reconcile 1 (10 * minute))
    ]
    ++ map (
      scope:
      duration "${lib.removePrefix "${at}." scope.option}.timeout" scope.given.timeout 1 (2 * minute)
    ) (import ../scopes.nix { inherit cfg lib; })
    ++ lib.concatLists (lib.mapAttrsToList ofPool cfg.pools);
  };
}
