# Mistakes in directories and variables that a pool gives to its jobs, and in other paths.
{ lib }:
let
  settings = lib.mapAttrs (_: given: { services.runner-controller = given; });
  ofCi = lib.mapAttrs' (
    wanted: given:
    lib.nameValuePair "services.runner-controller.pools.ci.${wanted}" {
      services.runner-controller.pools.ci = given;
    }
  );
  bind = from: to: { inherit from to; };
  source = from: why: {
    name = "binds: change from = \"${from}\", which ${why}; share a directory for jobs alone, such as \"/srv/ccache\".";
    value.binds = [ (bind from "/mnt/x") ];
  };
  target = to: why: {
    name = "binds: change to = \"${to}\", which ${why}; take another path, such as \"/mnt/ccache\".";
    value.binds = [ (bind "/srv/x" to) ];
  };
  ofHost = from: tree: source from "has a part of ${tree}, which belongs to the host alone";
  ofNix = from: source from "is not below /nix/store, the only part of /nix for a container";
  owned = from: directory: source from "overlaps ${directory}, which is for the daemon and root alone";
  tooMany = count: lib.genList toString count;
  notPlain = "is not a plain path: letters, digits and ._-+=?@ between single slashes";
  variable = name: message: {
    name = "environment: ${message}";
    value.environment.${name} = "x";
  };
  reserved = name: variable name "remove ${name}, which belongs to the runner";
  path = option: given: "services.runner-controller.${option}: write \"${given}\" as a plain absolute path";
in
{
  refused =
    ofCi (
      lib.listToAttrs [
        (ofHost "/etc/ssl" "/etc")
        (ofHost "/run/docker.sock" "/run")
        (ofHost "/var" "/var/lib/docker")
        (ofNix "/nix")
        (ofNix "/nix/store")
        (ofNix "/nix/var/nix/daemon-socket")
        (owned "/image/usr" "/image")
        (owned "/var/lib/runner-controller" "/var/lib/runner-controller")
        (owned "/var/lib/runner-layers/x" "/var/lib/runner-layers")
        (source "/" notPlain)
        (source "/srv/../etc" notPlain)
        (source "/srv/a model" notPlain)
        (source "/srv/x/" notPlain)
        (target "/home/runner" "would hide /home/runner/work of the container")
        (target "/mnt/a:b" notPlain)
        (target "/nix/store" "would hide or change /nix of the container")
        (target "/opt" "would hide or change /opt/actions-runner of the container")
        (target "/run/x" "would hide or change /run of the container")
        (target "/tmp" "would hide /tmp of the container")
        (target "/usr/share/models" "would hide or change /usr of the container")
      ]
      // {
        "binds: change from = \"/nix/store/abc-model\", which is never writable, although readOnly is false;" = {
          binds = [ (bind "/nix/store/abc-model" "/mnt/x" // { readOnly = false; }) ];
        };
        "binds: change to = \"/mnt/x/y\", which overlaps /mnt/x; put directories beside each other." = {
          binds = [
            (bind "/srv/x" "/mnt/x")
            (bind "/srv/y" "/mnt/x/y")
          ];
        };
        "binds: keep 16 of 17 directories" = {
          binds = map (number: bind "/srv/x" "/mnt/${number}") (tooMany 17);
        };
        "environment: keep 64 of 65 variables" = {
          environment = lib.genAttrs (map (number: "V${number}") (tooMany 65)) lib.id;
        };
        "environment: remove https_proxy, which the pool's proxy sets." = {
          proxy.url = "http://198.51.100.9:3128";
          environment.https_proxy = "x";
        };
        "environment: change the value of A to at most 4096 bytes without a line break" = {
          environment.A = "x\ny";
        };
        "environment: change the value of LONG to at most 4096 bytes" = {
          environment.LONG = lib.strings.replicate 4097 "x";
        };
      }
      // lib.listToAttrs [
        (reserved "ACTIONS_RUNNER_HOOK_JOB_STARTED")
        (reserved "CREDENTIALS_DIRECTORY")
        (reserved "GITHUB_TOKEN")
        (reserved "LD_PRELOAD")
        (reserved "RUNNER_LISTENER")
        (reserved "USER")
        (variable "" "rename \"\" to letters, digits and underscores")
        (variable "9LIVES" "rename \"9LIVES\" to letters")
        (variable "A-B" "rename \"A-B\" to letters")
      ]
    )
    // settings {
      "pools.ci.binds: change from = \"/srv/secrets\", which contains /srv/secrets/api-token, a secret" = {
        apiTokenFile = "/srv/secrets/api-token";
        prometheus.enable = true;
        pools.ci.binds = [ (bind "/srv/secrets" "/mnt/x") ];
      };
      # Without an option, in the words of the configuration file.
      "pools.ci.binds: change from = \"/srv/state\", which overlaps /srv/state/daemon, which is for" = {
        settings.state_dir = "/srv/state/daemon";
        pools.ci.binds = [ (bind "/srv/state" "/mnt/x") ];
      };
      ${path "github.tokenFile" "/run/the token"} = {
        github.tokenFile = "/run/the token";
      };
      ${path "github.caFile" "/etc/ssl/../ca.pem"} = {
        github.caFile = "/etc/ssl/../ca.pem";
      };
      ${path "layerDir" "/"} = {
        layerDir = "/";
      };
      ${path "layerDir" "/srv/layers/"} = {
        layerDir = "/srv/layers/";
      };
      ${path "pools.ci.image.directory" "/images//ci"} = {
        pools.ci.image.directory = "/images//ci";
      };
      ${path "pools.ci.image.runnerRoot" "/opt/a runner"} = {
        pools.ci.image.runnerRoot = "/opt/a runner";
      };
      ${path "pools.ci.workFolder" "/home/runner/my work"} = {
        pools.ci.workFolder = "/home/runner/my work";
      };
    };
}
