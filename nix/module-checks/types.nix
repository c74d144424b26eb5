# Values that an option's type refuses, and the nearest that it takes. The program has the same bounds.
{ lib }:
let
  range = least: most: {
    accepted = [
      least
      most
    ];
    refused = [
      (least - 1)
      (most + 1)
    ];
  };
  size = {
    accepted = [
      "512 MiB"
      "1.5GB"
    ];
    refused = [
      "6"
      "6 gigabytes"
      6
    ];
  };
  duration = {
    accepted = [
      "90s"
      "2h 30m"
    ];
    refused = [
      "90"
      "2 hours"
      90
    ];
  };
  # A path without quotes would be copied into the store.
  secret = {
    accepted = [ "/run/secrets/file" ];
    refused = [
      "/nix/store/00000000000000000000000000000000-file"
      ./types.nix
      "run/secrets/file"
    ];
  };
  path = {
    accepted = [
      "/srv/a"
      "/nix/store/00000000000000000000000000000000-a"
    ];
    refused = [
      ./types.nix
      "srv/a"
    ];
  };
  app = id: keyFile: { inherit id keyFile; };
  proxy = credentialsFile: {
    url = "http://10.0.0.5:3128";
    inherit credentialsFile;
  };
  webhookAt = virtualHost: path: {
    secretFile = "/run/secrets/webhook";
    nginx = { inherit virtualHost path; };
  };
  bind = from: to: { inherit from to; };
  entry = day: hours: {
    days = [ day ];
    inherit hours;
    timeZone = "UTC";
    minIdle = 1;
  };
  ofPool = lib.mapAttrs' (name: lib.nameValuePair "pools.ci.${name}");
  sizes = lib.flip lib.genAttrs (_: size);
in
{
  apiTokenFile = secret;
  "github.tokenFile" = secret;
  "github.app" = {
    accepted = [ (app "Iv23li.Example" "/run/secrets/app.pem") ];
    refused = [
      (app "an app" "/run/secrets/app.pem")
      (app 12345 "/nix/store/00000000000000000000000000000000-app.pem")
    ];
  };
  "github.proxy" = {
    accepted = [ (proxy "/run/secrets/proxy") ];
    refused = [ (proxy "/nix/store/00000000000000000000000000000000-proxy") ];
  };
  notify = {
    accepted = [
      { command = [ "/bin/notify" ]; }
      {
        command = [ "/bin/notify" ];
        events = [ "drained" ];
      }
    ];
    refused = [
      { command = [ ]; }
      {
        command = [ "/bin/notify" ];
        events = [ "everything" ];
      }
    ];
  };
  mode = {
    accepted = [ "observe" ];
    refused = [ "dry-run" ];
  };
  webhook = {
    accepted = [
      { secretFile = "/run/secrets/webhook"; }
      (webhookAt "runners.example.org" "/webhook")
    ];
    refused = [
      (webhookAt "runners.example.org/webhook" "/")
      (webhookAt "runners.example.org" "webhook")
      (webhookAt "runners.example.org" "/a b")
      { secretFile = "/nix/store/00000000000000000000000000000000-webhook"; }
      {
        secretFile = "/run/secrets/webhook";
        port = 65536;
      }
    ];
  };
  "github.apiVersion" = {
    accepted = [ "2026-03-10" ];
    refused = [
      "2026-3-10"
      "latest"
    ];
  };
  "github.mintsPerMinute" = range 1 1000;
  "github.timeout" = duration;
  "bootCheck.patience" = duration;
  reconcile = duration;
  "rebootWhenDrained.patience" = duration;
  layerDir = path;
  "network.uidBase" = range 524288 1879048191;
  "prometheus.port" = range 0 65535;
  "history.age" = duration;
  "history.runners" = range 100 2000000;
  "logs.age" = duration;
  "logs.keep" = {
    accepted = [
      "failed"
      "all"
      "none"
    ];
    refused = [
      "success"
      true
    ];
  };
  "queue.fairnessAge" = duration;
  "queue.maxPerRepository" = range 1 1000;
  "queue.reserveAfter" = duration;
}
// sizes [
  "budget.memory"
  "logs.space"
  "reserve.disk"
  "reserve.memory"
]
// ofPool (
  sizes [
    "layer.size"
    "limits.memory"
    "total.memory"
  ]
  // {
    "binds" = {
      accepted = map (from: [ (bind from "/mnt/a") ]) path.accepted;
      refused = map (from: [ (bind from "/mnt/a") ]) path.refused ++ [ [ (bind "/srv/a" ./types.nix) ] ];
    };
    "image.directory" = path;
    "image.runnerRoot" = path;
    workFolder = path;
    # A loop device cannot be mounted in a container, and those of the host are layers of other runners.
    "capabilities" = {
      accepted = [
        [ ]
        [ "CAP_NET_RAW" ]
      ];
      refused = [
        [ "CAP_SYS_RAWIO" ]
        [ "cap_net_raw" ]
        "CAP_NET_RAW"
      ];
    };
    "devices" = {
      accepted = [
        [ ]
        [
          "/dev/fuse"
          "/dev/kvm"
          "/dev/net/tun"
        ]
      ];
      refused = [
        [ "/dev/loop-control" ]
        [ "/dev/sda" ]
        [ "kvm" ]
      ];
    };
    "demand" = {
      accepted = [
        "queue"
        "scale-set"
      ];
      refused = [ "jobs" ];
    };
    "scaleSet" = {
      accepted = [ "runner-01-ci" ];
      refused = [ "a&b" ];
    };
    "egress" = {
      accepted = [ "listed" ];
      refused = [ "everything" ];
    };
    "layer.kind" = {
      accepted = [ "disk" ];
      refused = [ "memory" ];
    };
    "labels" = {
      accepted = [ [ "ci" ] ];
      refused = [ [ ] ];
    };
    "limits.connections" = range 64 1048576;
    "limits.controlGroupDepth" = range 10 64;
    "limits.controlGroups" = range 100 100000;
    "limits.inotifyInstances" = range 128 1048576;
    "limits.inotifyWatches" = range 4096 1073741824;
    "limits.ioWeight" = range 1 10000;
    "limits.namespaces" = range 128 65536;
    "limits.openFiles" = range 1024 1048576;
    "limits.pendingSignals" = range 64 1048576;
    "limits.tasks" = range 64 4194304;
    "limits.terminals" = range 16 65536;
    "limits.userNamespaces" = range 0 65536;
    "maxRunners" = range 1 999;
    "minIdle" = range 0 999;
    "minSpare" = range 0 999;
    "offset" = range 0 65535;
    "scaleDownAfter" = duration;
    "schedule" = {
      accepted = map (hours: [ (entry "sat" hours) ]) [
        "22:00-06:00"
        "00:00-24:00"
      ];
      refused = [
        [ (entry "saturday" "22:00-06:00") ]
        [ (entry "sat" "22-06") ]
        [ (entry "sat" "24:00-06:00") ]
      ];
    };
    "timeouts.boot" = duration;
    "timeouts.idleAge" = duration;
    "timeouts.job" = duration;
    "timeouts.registration" = duration;
    "timeouts.spareAge" = duration;
    "timeouts.stop" = duration;
    "total.tasks" = range 64 4194304;
  }
)
