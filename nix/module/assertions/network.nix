# `network`, and the places that pools take of it.
{ config, lib, ... }:
let
  cfg = config.services.runner-controller;
  at = "services.runner-controller";
  values = import ../values.nix { inherit lib; };

  block = values.block 8 30 cfg.network.block;
  inBlock = text: block != null && isIn block (lib.head (lib.splitString "/" text));
  isIn =
    range: text:
    let
      bits = values.address text;
    in
    bits != null && values.contains range bits;
  private = map (values.block 8 30) [
    "10.0.0.0/8"
    "172.16.0.0/12"
    "192.168.0.0/16"
    "100.64.0.0/10"
  ];

  resolver =
    text:
    let
      bits = values.address text;
    in
    if bits == null then
      "is not an IPv4 address"
    else if isIn (values.block 8 8 "127.0.0.0/8") text then
      "is loopback, which is the container itself"
    else if bits == 0 || bits >= 224 * 16777216 then
      "is not an address of a host"
    else if inBlock text then
      "is in network.block, the addresses of containers"
    else
      null;
  resolvers = lib.filter (found: found.wrong != null) (
    map (text: {
      inherit text;
      wrong = resolver text;
    }) cfg.network.resolvers
  );

  places = lib.sort (a: b: a.from < b.from) (
    lib.mapAttrsToList (name: pool: {
      inherit name;
      from = pool.offset;
      end = pool.offset + pool.maxRunners;
    }) cfg.pools
  );
  pairs = if places == [ ] then [ ] else lib.zipLists places (lib.tail places);
  shared = lib.filter ({ fst, snd }: snd.from < fst.end) pairs;
  room = if block == null then 0 else block.size / 4;
  endOf = lib.foldl' (most: place: lib.max most place.end) 0;
  needed = endOf places;
  # First place after all pools but this one.
  freeFor = name: toString (endOf (lib.filter (place: place.name != name) places));

  uids = {
    first = cfg.network.uidBase;
    end = cfg.network.uidBase + needed * 65536;
  };
  # End of systemd's range for containers (UIDS-GIDS.md).
  uidEnd = 1879048192;
  # Ids that others have, each with the option that gives them.
  ofUser =
    user: given:
    lib.concatMap
      (
        { kind, first }:
        map (range: {
          option = "users.users.${user}.${kind}";
          first = range.${first};
          end = range.${first} + range.count;
        }) (given.${kind} or [ ])
      )
      [
        {
          kind = "subUidRanges";
          first = "startUid";
        }
        {
          kind = "subGidRanges";
          first = "startGid";
        }
      ];
  ofContainer =
    name: container:
    lib.optional (lib.isInt (container.privateUsers or null)) {
      option = "containers.${name}.privateUsers";
      first = container.privateUsers;
      end = container.privateUsers + 65536;
    };
  ranges = lib.concatLists (
    lib.mapAttrsToList ofUser config.users.users
    ++ lib.mapAttrsToList ofContainer config.containers
  );
  takenUids = lib.filter (range: range.first < uids.end && uids.first < range.end) ranges;

  # Addresses of the host and of its declarative containers, each with the option that sets it.
  addresses = lib.concatLists (
    lib.mapAttrsToList (
      name: interface:
      map (entry: {
        option = "networking.interfaces.${name}.ipv4.addresses";
        inherit (entry) address;
      }) (interface.ipv4.addresses or [ ])
    ) config.networking.interfaces
    ++ lib.mapAttrsToList (
      name: network:
      map (address: {
        option = "systemd.network.networks.${name}";
        inherit address;
      }) (network.address or [ ] ++ lib.catAttrs "Address" (network.addresses or [ ]))
    ) config.systemd.network.networks
    ++ lib.mapAttrsToList (
      name: container:
      lib.concatMap
        (
          option:
          lib.optional (container.${option} or null != null) {
            option = "containers.${name}.${option}";
            address = container.${option};
          }
        )
        [
          "hostAddress"
          "localAddress"
        ]
    ) config.containers
  );
in
{
  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = block != null;
        message = "${at}.network.block: set it to a block such as \"10.200.0.0/16\", with a prefix length from 8 to 30 and no bits of the address below it; \"${cfg.network.block}\" is not one.";
      }
      {
        assertion =
          block == null
          || lib.any (range: values.contains range block.first && range.size >= block.size) private;
        message = "${at}.network.block: take a block of 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16 or 100.64.0.0/10, because jobs cannot reach the machines that own ${cfg.network.block}.";
      }
      {
        assertion = lib.elem (lib.length cfg.network.resolvers) [
          1
          2
          3
        ];
        message = "${at}.network.resolvers: list one to three servers instead of ${toString (lib.length cfg.network.resolvers)}, because resolv.conf takes no more.";
      }
      {
        assertion = resolvers == [ ];
        message = "${at}.network.resolvers: replace ${(lib.head resolvers).text}, which ${(lib.head resolvers).wrong}.";
      }
      {
        assertion = shared == [ ];
        # Evaluation cannot know the pool that has running containers, so the message has both ways.
        message =
          let
            inherit (lib.head shared) fst snd;
          in
          "${at}.pools.${snd.name}.offset: set it to ${freeFor snd.name} if pool ${snd.name} is new; if pool ${fst.name} is new, set pools.${fst.name}.offset to ${freeFor fst.name}; otherwise lower maxRunners of ${fst.name}. Both pools have place ${toString snd.from}, and a pool with running containers keeps its offset.";
      }
      {
        assertion = block == null || needed <= room;
        message = "${at}.network.block: widen it: ${cfg.network.block} has ${toString room} places of four addresses, and the pools need ${toString needed}.";
      }
      {
        assertion = lib.mod cfg.network.uidBase 65536 == 0;
        message = "${at}.network.uidBase: set it to ${
          toString (cfg.network.uidBase - lib.mod cfg.network.uidBase 65536)
        }, a multiple of 65536.";
      }
      {
        assertion = uids.end <= uidEnd;
        message = "${at}.network.uidBase: lower it to ${toString (uidEnd - needed * 65536)} or less, because the pools need ${toString needed} places of 65536 uids before ${toString uidEnd}, the end of the range for containers.";
      }
      {
        assertion = takenUids == [ ];
        message =
          let
            range = lib.head takenUids;
          in
          "${at}.network.uidBase: move it out of ${range.option}, which has ids ${toString range.first} to ${
            toString (range.end - 1)
          }; the pools take ${toString uids.first} to ${toString (uids.end - 1)}.";
      }
    ]
    ++ map (found: {
      assertion = false;
      message = "${at}.network.block: take a block that the host does not use, because ${found.option} has ${found.address} in ${cfg.network.block}.";
    }) (lib.filter (found: inBlock found.address) addresses);
  };
}
