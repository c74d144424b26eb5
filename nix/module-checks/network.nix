# Mistakes in `network` and in the places of pools.
{ lib }:
let
  settings = lib.mapAttrs (_: given: { services.runner-controller = given; });
  big = given: {
    pools.big = {
      labels = [ "big" ];
      image.directory = "/image";
      maxRunners = 2;
    }
    // given;
  };
  address = list: { ipv4.addresses = map (address: { inherit address; }) list; };
  block = given: { network.block = given; };
  notOne = given: "network.block: set it to a block such as \"10.200.0.0/16\", with a prefix length from 8 to 30 and no bits of the address below it; \"${given}\" is not one.";
in
{
  refused =
    settings {
      # The pool `ci` has no offset either, and its containers may run.
      "pools.ci.offset: set it to 2 if pool ci is new; if pool big is new, set pools.big.offset to 4;" =
        big { };
      "pools.big.offset: set it to 4 if pool big is new; if pool ci is new, set pools.ci.offset to 5; otherwise lower maxRunners of ci." =
        big { offset = 3; };
      "network.block: widen it: 10.0.0.0/29 has 2 places" = block "10.0.0.0/29";
      "network.block: take a block of 10.0.0.0/8" = block "11.0.0.0/16";
      ${notOne "10.200.0.0"} = block "10.200.0.0";
      ${notOne "10.200.0.0/31"} = block "10.200.0.0/31";
      ${notOne "10.200.0.1/16"} = block "10.200.0.1/16";
      ${notOne "10.300.0.0/16"} = block "10.300.0.0/16";
      ${notOne "fd00::/64"} = block "fd00::/64";
      "network.uidBase: set it to 524288" = {
        network.uidBase = 524289;
      };
      "network.uidBase: lower it to 1878786048 or less" = {
        network.uidBase = 1878851584;
      };
      "network.resolvers: list one to three servers instead of 0" = {
        network.resolvers = [ ];
      };
      "network.resolvers: list one to three servers instead of 4" = {
        network.resolvers = [
          "9.9.9.9"
          "1.1.1.1"
          "8.8.8.8"
          "8.8.4.4"
        ];
      };
      "network.resolvers: replace dns.example.org, which is not an IPv4 address" = {
        network.resolvers = [ "dns.example.org" ];
      };
      "network.resolvers: replace 127.0.0.53, which is loopback" = {
        network.resolvers = [ "127.0.0.53" ];
      };
      "network.resolvers: replace 0.0.0.0, which is not an address of a host" = {
        network.resolvers = [ "0.0.0.0" ];
      };
      "network.resolvers: replace 10.200.0.1, which is in network.block" = {
        network.resolvers = [ "10.200.0.1" ];
      };
    }
    // {
      "network.block: take a block that the host does not use, because networking.interfaces.eth0.ipv4.addresses has 10.200.3.4 in 10.200.0.0/16".networking.interfaces.eth0 =
        address [
          "192.0.2.1"
          "10.200.3.4"
        ];
      "because systemd.network.networks.lan has 10.200.3.4/24 in".systemd.network.networks.lan.address = [
        "10.200.3.4/24"
        "fd00::4/64"
      ];
      "because containers.web.localAddress has 10.200.0.2/24 in".containers.web = {
        hostAddress = "192.168.100.1";
        localAddress = "10.200.0.2/24";
      };
      "because containers.db.hostAddress has 10.200.0.1 in".containers.db.hostAddress = "10.200.0.1";
      "network.uidBase: move it out of users.users.alice.subUidRanges, which has ids 268500992 to 268566527; the pools take 268435456 to 268697599.".users.users.alice.subUidRanges =
        [
          {
            startUid = 268500992;
            count = 65536;
          }
        ];
      "network.uidBase: move it out of users.users.alice.subGidRanges, which has ids 268697598".users.users.alice.subGidRanges =
        [
          {
            startGid = 268697598;
            count = 2;
          }
        ];
      "network.uidBase: move it out of containers.web.privateUsers, which has ids 268632064".containers.web.privateUsers =
        268632064;
    };
}
