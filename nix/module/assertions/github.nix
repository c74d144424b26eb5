# `host`, `github` and `scopes`.
{
  config,
  lib,
  options,
  ...
}:
let
  cfg = config.services.runner-controller;
  at = "services.runner-controller";
  scopes = import ../scopes.nix { inherit cfg lib; };
  names = lib.attrNames cfg.scopes;

  # Nearest valid name, as a suggestion.
  nearest = builtins.match "-*([a-z0-9-]{0,31}[a-z0-9])[^a-z0-9]*" (
    lib.replaceStrings [ "." "_" ] [ "-" "-" ] (lib.toLower cfg.host)
  );
  suggested = if nearest == null then "runner-01" else lib.head nearest;

  ofScope =
    {
      option,
      given,
      settings,
      pools,
      ...
    }:
    let
      # A browser's address may end in a query.
      url = lib.head (builtins.split "[?#]" given.url);
      parts = builtins.match "(https?)://([^/]+)(/.*)?" url;
      path = lib.filter (part: part != "") (
        lib.splitString "/" (if parts == null || lib.last parts == null then "" else lib.last parts)
      );
      isName = part: builtins.match "[A-Za-z0-9._-]{1,100}" part != null && part != "." && part != "..";
      wrongUrl =
        if parts == null then
          "begin it with https://"
        else if path == [ ] then
          "add the organisation, or the owner and the repository"
        else if path == [ "enterprises" ] then
          "add the enterprise: ${lib.head parts}://${lib.elemAt parts 1}/enterprises/ENTERPRISE"
        else if lib.head path == "orgs" then
          "end it with the organisation, without orgs: ${lib.head parts}://${lib.elemAt parts 1}/${lib.concatStringsSep "/" (lib.take 1 (lib.tail path))}"
        else if !lib.all isName (lib.take 2 path) then
          "use only letters, digits, dots, dashes and underscores in names"
        else if lib.length path > 2 then
          "end it after the repository: ${lib.head parts}://${lib.elemAt parts 1}/${lib.concatStringsSep "/" (lib.take 2 path)}"
        else
          null;

      isEnterprise = wrongUrl == null && lib.head path == "enterprises";

      # The address of the API follows from `url`, except at github.com and ghe.com always with https://.
      server = lib.elemAt parts 1;
      isCloud =
        lib.elem server [
          "github.com"
          "www.github.com"
        ]
        || lib.hasSuffix ".ghe.com" server;
      sendsPlain =
        if given.apiUrl != null then
          lib.hasPrefix "http://" given.apiUrl
        else
          wrongUrl == null && lib.head parts == "http" && !isCloud;
    in
    [
      {
        assertion = wrongUrl == null;
        message = "${option}.url: ${toString wrongUrl}; it is \"${given.url}\", and a repository is \"https://github.com/OWNER/REPO\".";
      }
      {
        assertion = !sendsPlain || settings.allow_plain_http or false;
        message = "${option}.${
          if given.apiUrl != null then "apiUrl" else "url"
        }: begin it with https://, because http:// sends the token in the clear.";
      }
      {
        assertion = (given.tokenFile != null) != (given.app != null);
        message = "${option}: set exactly one of tokenFile and app: tokenFile to a file with a GitHub token, such as config.age.secrets.github-runner.path, or app to the id and the key's file of a GitHub App.";
      }
      {
        assertion = !isEnterprise || given.app == null;
        message = "${option}.app: set tokenFile instead, to a classic token with manage_runners:enterprise, because GitHub gives an App no access to the runners of an enterprise.";
      }
      {
        assertion =
          given.apiUrl == null
          || builtins.match "https?://[^/@?#[:space:]]+(/[^@?#[:space:]]*)?" given.apiUrl != null;
        message = "${option}.apiUrl: set it to the base URL of the API, such as \"https://github.example.com/api/v3\", without credentials, a query or a fragment.";
      }
    ]
    ++ lib.optionals (wrongUrl == null && lib.length path == 2 && !isEnterprise) (
      lib.mapAttrsToList (name: pool: {
        assertion = lib.toLower pool.group == "default";
        message = "${at}.pools.${name}.group: remove it, or set ${lib.removePrefix "${at}." option}.url to the organisation, because a repository does not have runner groups.";
      }) pools
    )
    ++ lib.optionals (wrongUrl == null && (lib.length path == 1 || isEnterprise)) (
      lib.mapAttrsToList (name: pool: {
        assertion = pool.demand != "queue";
        message = "${at}.pools.${name}.demand: set \"webhook\" or \"fixed\", or ${lib.removePrefix "${at}." option}.url to a repository, because the host can read the queue of a repository only.";
      }) pools
    );

  # Mistakes of a scope beside others.
  ofName =
    scope:
    let
      url = given: lib.removeSuffix "/" (lib.toLower given.url);
      same = lib.filter (other: other.name < scope.name && url other.given == url scope.given) scopes;
    in
    [
      {
        assertion = builtins.match "[a-z][a-z0-9-]{0,31}" scope.name != null;
        message = "${scope.option}: name it with 1 to 32 of a-z, 0-9 and dash, beginning with a letter, because systemd credentials and metrics have its name.";
      }
      {
        assertion = same == [ ];
        message = "${scope.option}.url: remove the scope, because ${(lib.head same).option} has the same url; pools of both may name one scope.";
      }
      {
        assertion = scope.pools != { } || !lib.all isKnown (lib.attrValues cfg.pools);
        message = "${scope.option}: set scope = \"${scope.name}\" in a pool, or remove it, because no pool uses it.";
      }
    ];

  isKnown = pool: lib.elem pool.scope names || pool.scope == null && lib.length names == 1;

  ofPool =
    name: pool:
    let
      here = "${at}.pools.${name}.scope";
      choice = lib.concatMapStringsSep " or " (name: "\"${name}\"") names;
    in
    if names == [ ] then
      {
        assertion = pool.scope == null;
        message = "${here}: remove it, or move ${at}.github to scopes.${toString pool.scope}, because github is the only scope and has no name.";
      }
    else
      {
        assertion = isKnown pool;
        message = "${here}: set it to ${choice}, because ${
          if pool.scope == null then "the host has several scopes" else "\"${pool.scope}\" is not in scopes"
        }.";
      };
in
{
  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = builtins.match "[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?" cfg.host != null;
        message = "${at}.host: set it to 1 to 32 of a-z, 0-9 and dash, such as \"${suggested}\", because \"${cfg.host}\"${
          lib.optionalString (cfg.host == config.networking.hostName) ", from networking.hostName,"
        } cannot begin the names of runners.";
      }
      {
        assertion =
          names == [ ]
          || !options.services.runner-controller.github.url.isDefined
          && cfg.github.tokenFile == null
          && cfg.github.app == null;
        message = "${at}.github: move it to scopes.NAME, and set scope = \"NAME\" in its pools, because a host with scopes has every scope there.";
      }
      {
        assertion = cfg.apiTokenFile == null || cfg.prometheus.enable;
        message = "${at}.apiTokenFile: enable ${at}.prometheus too, or remove apiTokenFile, because the Unix socket checks the peer's user and takes no token.";
      }
    ]
    ++ lib.concatMap ofScope scopes
    ++ lib.concatMap ofName (lib.filter (scope: scope.name != null) scopes)
    ++ lib.mapAttrsToList ofPool cfg.pools;
  };
}
