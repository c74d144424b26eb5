# Values in the notation of the configuration file, read as numbers. The program reads them by the same
# rules (runner-controller/src/config); null stands for a text that it refuses.
{ lib }:
let
  product = lib.foldl' builtins.mul 1;
  power = base: exponent: product (lib.genList (_: base) exponent);

  # Returns the number of a text without a sign and without leading zeros, which others read as octal.
  plain =
    text: if builtins.match "0|[1-9][0-9]{0,9}" text == null then null else lib.toIntBase10 text;

  # Returns the 32 bits of an IPv4 address.
  address =
    text:
    let
      octets = map plain (lib.splitString "." text);
    in
    if lib.length octets == 4 && lib.all (octet: octet != null && octet < 256) octets then
      lib.foldl' (bits: octet: bits * 256 + octet) 0 octets
    else
      null;

  unitBytes = text: power (if lib.hasInfix "i" text then 1024 else 1000);
  exponents = {
    K = 1;
    M = 2;
    G = 3;
    T = 4;
  };

  # Units of the crate humantime that the options' type allows.
  unitSeconds = lib.concatMapAttrs (
    names: seconds: lib.genAttrs (lib.splitString " " names) (_: seconds)
  ) {
    "seconds second secs sec s" = 1;
    "minutes minute mins min m" = 60;
    "hours hour hrs hr h" = 3600;
    "days day d" = 86400;
    "weeks week wk w" = 604800;
  };

  # Returns first address and number of addresses of `ADDRESS/PREFIX`, with a prefix in this range.
  block =
    least: most: text:
    let
      parts = lib.splitString "/" text;
      first = address (lib.head parts);
      prefix = plain (lib.last parts);
      size = power 2 (32 - prefix);
    in
    if
      lib.length parts == 2
      && first != null
      && prefix != null
      && prefix >= least
      && prefix <= most
      && lib.mod first size == 0
    then
      { inherit first size; }
    else
      null;
in
{
  inherit address block;

  # Returns true if the path is the directory or lies in it.
  isBelow =
    directory: path:
    directory == "/" || path == directory || lib.hasPrefix (directory + "/") path;

  # Returns true for an absolute path that needs no quotes.
  isPlainPath =
    text:
    let
      parts = lib.splitString "/" text;
    in
    lib.stringLength text <= 512
    && builtins.match "(/[A-Za-z0-9._+=?@-]+)+" text != null
    && !lib.elem "." parts
    && !lib.elem ".." parts;

  # Returns block, port and protocol of an entry of `allow`, each null if it is wrong.
  destination =
    text:
    let
      parts = builtins.match "([^:/]+)(/[^:]*)?:([^/]*)(/tcp|/udp)?" text;
      prefix = lib.elemAt parts 1;
      port = plain (lib.elemAt parts 2);
    in
    if parts == null then
      {
        block = null;
        port = null;
        protocol = null;
      }
    else
      {
        block = block 8 32 (lib.head parts + (if prefix == null then "/32" else prefix));
        port = if port == null || port < 1 || port > 65535 then null else port;
        protocol = if lib.last parts == "/udp" then "udp" else "tcp";
      };

  # Returns true if the address, or the first address of the smaller block, is in the block.
  contains = block: bits: bits >= block.first && bits < block.first + block.size;

  # Returns the number of bytes of a size such as "1.5 GiB".
  bytes =
    text:
    let
      parts = builtins.match "([0-9.]+) ?([KMGT])(i?B)" text;
      unit = unitBytes (lib.last parts) exponents.${lib.elemAt parts 1};
    in
    builtins.floor (builtins.fromJSON (lib.head parts) * unit);

  # Returns the seconds of a duration such as "2h 30m". Null for units below a second, a month or longer.
  seconds =
    text:
    let
      terms = lib.filter builtins.isList (builtins.split "([0-9]+)([a-z]+)" text);
      known = lib.all (term: unitSeconds ? ${lib.last term}) terms;
    in
    if known then
      lib.foldl' (
        sum: term: sum + lib.toIntBase10 (lib.head term) * unitSeconds.${lib.last term}
      ) 0 terms
    else
      null;
}
