# `host` and `github`.
{ config, lib, ... }:
let
  cfg = config.services.runner-controller;
  at = "services.runner-controller";

  # A browser's address may end in a query.
  url = lib.head (builtins.split "[?#]" cfg.github.url);
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
    if cfg.github.apiUrl != null then
      lib.hasPrefix "http://" cfg.github.apiUrl
    else
      wrongUrl == null && lib.head parts == "http" && !isCloud;

  # Nearest valid name, as a suggestion.
  nearest = builtins.match "-*([a-z0-9-]{0,31}[a-z0-9])[^a-z0-9]*" (
    lib.replaceStrings [ "." "_" ] [ "-" "-" ] (lib.toLower cfg.host)
  );
  suggested = if nearest == null then "runner-01" else lib.head nearest;
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
        assertion = wrongUrl == null;
        message = "${at}.github.url: ${toString wrongUrl}; it is \"${cfg.github.url}\", and a repository is \"https://github.com/OWNER/REPO\".";
      }
      {
        assertion = !sendsPlain || cfg.settings.github.allow_plain_http or false;
        message = "${at}.github.${
          if cfg.github.apiUrl != null then "apiUrl" else "url"
        }: begin it with https://, because http:// sends the token in the clear.";
      }
      {
        assertion = (cfg.github.tokenFile != null) != (cfg.github.app != null);
        message = "${at}.github: set exactly one of tokenFile and app: tokenFile to a file with a GitHub token, such as config.age.secrets.github-runner.path, or app to the id and the key's file of a GitHub App.";
      }
      {
        assertion = !isEnterprise || cfg.github.app == null;
        message = "${at}.github.app: set tokenFile instead, to a classic token with manage_runners:enterprise, because GitHub gives an App no access to the runners of an enterprise.";
      }
      {
        assertion =
          cfg.github.apiUrl == null
          || builtins.match "https?://[^/@?#[:space:]]+(/[^@?#[:space:]]*)?" cfg.github.apiUrl != null;
        message = "${at}.github.apiUrl: set it to the base URL of the API, such as \"https://github.example.com/api/v3\", without credentials, a query or a fragment.";
      }
      {
        assertion = cfg.apiTokenFile == null || cfg.prometheus.enable;
        message = "${at}.apiTokenFile: enable ${at}.prometheus too, or remove apiTokenFile, because the Unix socket checks the peer's user and takes no token.";
      }
    ]
    ++ lib.optionals (wrongUrl == null && lib.length path == 2 && !isEnterprise) (
      lib.mapAttrsToList (name: pool: {
        assertion = lib.toLower pool.group == "default";
        message = "${at}.pools.${name}.group: remove it, or set github.url to the organisation, because a repository does not have runner groups.";
      }) cfg.pools
    );
  };
}
