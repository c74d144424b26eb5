# Mistakes in a pool.
{ lib }:
let
  settings = lib.mapAttrs (_: given: { services.runner-controller = given; });
  ofCi = lib.mapAttrs' (
    wanted: given:
    lib.nameValuePair "services.runner-controller.pools.ci${wanted}" {
      services.runner-controller.pools.ci = given;
    }
  );
  allow = entry: why: {
    name = ".allow: change \"${entry}\", which ${why}";
    value.allow = [ entry ];
  };
  key = length: "cache.example.org-1:${lib.strings.replicate length "A"}=";
in
{
  refused =
    settings {
      "pools: add a pool" = {
        pools = lib.mkForce { };
      };
      "pools.Big: rename the pool" = {
        pools.Big = {
          labels = [ "big" ];
          image.directory = "/image";
          offset = 4;
          maxRunners = 2;
        };
      };
    }
    // ofCi (
      {
        ": minIdle 4 and minSpare 2 do not fit; raise maxRunners to 6" = {
          minIdle = 4;
          minSpare = 2;
        };
        ": raise minIdle to 1, or set demand" = {
          minIdle = 0;
        };
        ".demand: set services.runner-controller.webhook" = {
          demand = "webhook";
          minIdle = 0;
        };
        ": set nix = true" = {
          substituters = [ "https://cache.example.org" ];
        };
        ".image: remove directory, or modules and specialArgs" = {
          image.modules = [ { } ];
        };
        ".labels: keep 100 of 101 labels" = {
          labels = map toString (lib.range 1 101);
        };
        ".labels: change \"a,b\"" = {
          labels = [ "a,b" ];
        };
        ".labels: change \" a\"" = {
          labels = [ " a" ];
        };
        ".labels: change \"\"" = {
          labels = [ "" ];
        };
        ".labels: list each label once, because GitHub ignores case" = {
          labels = [
            "linux"
            "Linux"
          ];
        };
        ".substituters: replace 1 of the URLs with \"https://cache.example.org\"" = {
          nix = true;
          substituters = [
            "https://cache.example.org"
            "s3://bucket"
          ];
        };
        ".trustedPublicKeys: replace the key that begins with \"cache.example.org-1\", which is secret" = {
          nix = true;
          trustedPublicKeys = [ (key 87) ];
        };
        ".trustedPublicKeys: replace the key that begins with \"cache.example.org-1\", which does not have a key of 32 bytes" =
          {
            nix = true;
            trustedPublicKeys = [ (key 11) ];
          };
        ".trustedPublicKeys: replace the key that begins with \"AAAA\", which is not a name, a colon and a key" =
          {
            nix = true;
            trustedPublicKeys = [ "AAAA" ];
          };
        ".layer.size: raise it to 16 MiB or more, because a container does not boot in 8 MiB" = {
          layer.size = "8 MiB";
        };
        ".layer.size: lower it to limits.memory, 4 GiB, raise limits.memory to 4.5 GiB" = {
          layer.size = "4.5 GiB";
        };
        ".limits.memory: raise it to 64 MiB or more, because a container does not boot in 32 MB" = {
          limits.memory = "32 MB";
          layer.size = "16 MiB";
        };
        ".limits.cpu: set it to 0.05 to 1024 cores instead of 2000" = {
          limits.cpu = 2000;
        };
        ".total.memory: raise it to limits.memory, 4 GiB, or more" = {
          total.memory = "4 GB";
        };
        ".total.cpu: raise it to limits.cpu, 4, or more" = {
          limits.cpu = 4;
          total.cpu = 3.5;
        };
        ".total.tasks: raise it to limits.tasks, 4096, or more" = {
          total.tasks = 1000;
        };
        ".timeouts.job: set it to 1 s to 5 d instead of \"6days\"" = {
          timeouts.job = "6days";
        };
        ".timeouts.idleAge: set it to 60 s to 30 d instead of \"30s\"" = {
          timeouts.idleAge = "30s";
        };
        ".timeouts.registration: raise it to twice reconcile or more, because the daemon sees an online runner at a reconcile, every 60s" =
          {
            timeouts.registration = "1m 59s";
          };
        ".allow: keep 64 of 65 entries" = {
          allow = map (port: "10.0.0.5:${toString port}") (lib.range 1 65);
        };
        ".allow: add a tcp port, because with egress = \"none\"" = {
          egress = "none";
          allow = [ "10.1.2.3:53/udp" ];
        };
        ".workFolder: set it to a directory that a job can write" = {
          workFolder = "/nix/store/work";
        };
      }
      // lib.listToAttrs [
        (allow "10.0.0.5" "is not ADDRESS:PORT")
        (allow "10.0.0.5:443/sctp" "is not ADDRESS:PORT")
        (allow "10.0.0.5:0" "does not have a port from 1 to 65535")
        (allow "10.0.0.5:080" "does not have a port from 1 to 65535")
        (allow "10.0.0.5/24:443" "does not begin with an IPv4 address or block")
        (allow "cache.lan:443" "does not begin with an IPv4 address or block")
        (allow "127.0.0.1:443" "is loopback")
        (allow "169.254.169.254:80" "is link-local")
        (allow "10.0.0.0/8:443" "has addresses in network.block")
        (allow "224.0.0.1:443" "is multicast or reserved")
      ]
    );
}
