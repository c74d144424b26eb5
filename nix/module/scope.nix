# Options of one scope: `github`, or each of `scopes`.
{ lib, ... }:
let
  inherit (lib) mkOption types;
  inherit (import ./types.nix { inherit lib; })
    appId
    date
    duration
    secretFile
    ;
in
{
  options = {
    url = mkOption {
      type = types.str;
      example = "https://github.com/acme/widgets";
      description = ''
        Repository, organisation or enterprise whose jobs are taken, as copied from the browser. An
        enterprise is `https://github.com/enterprises/ENTERPRISE` and needs `tokenFile`.
      '';
    };

    tokenFile = mkOption {
      type = types.nullOr secretFile;
      default = null;
      example = lib.literalExpression "config.age.secrets.github-runner.path";
      description = ''
        File that contains only a GitHub token. It must be readable by root, and never be in the
        Nix store. The token needs *Self-hosted runners: write* for an organisation,
        *Administration: write* for a repository, or is a classic one with
        `manage_runners:enterprise` for an enterprise. systemd hands it to the daemon as a
        credential, and no container ever sees it. If agenix makes the file, a new secret restarts
        the daemon.
      '';
    };

    app = mkOption {
      type = types.nullOr (
        types.submodule {
          options = {
            id = mkOption {
              type = types.either types.ints.positive appId;
              example = "Iv23liExample";
              description = "Client id or number of the App, from its settings page.";
            };
            keyFile = mkOption {
              type = secretFile;
              example = lib.literalExpression "config.age.secrets.github-app.path";
              description = ''
                File that contains a private key of the App, in PEM as GitHub gave it. It must be
                readable by root, and never be in the Nix store.
              '';
            };
          };
        }
      );
      default = null;
      example = lib.literalExpression ''
        {
          id = "Iv23liExample";
          keyFile = config.age.secrets.github-app.path;
        }
      '';
      description = ''
        GitHub App instead of `tokenFile`. It must be installed for the scope in `url`, with
        *Self-hosted runners: write* (organisation) or *Administration: write* (repository). An
        App does not depend on a person's account. The daemon requests tokens that expire after
        one hour and allow only changes to these runners. It costs two calls per hour.
      '';
    };

    apiUrl = mkOption {
      type = types.nullOr types.str;
      default = null;
      example = "https://github.example.com/api/v3";
      description = "Base URL of the API, for another address of it. By default it follows from `url`.";
    };

    mintsPerMinute = mkOption {
      type = types.ints.between 1 1000;
      default = 150;
      example = 60;
      description = ''
        Maximum number of registrations in a minute. The default stays within what GitHub documents: 180
        in a minute and 10,000 in an hour. GitHub's refusals lower it for a while. Hosts with the same
        token or App share GitHub's limits, so give each a part. A GitHub Enterprise Server
        without limits takes more.
      '';
    };

    caFile = mkOption {
      type = types.nullOr types.path;
      default = null;
      example = "/etc/ssl/private-ca.pem";
      description = ''
        PEM file with certificate authorities besides those of this host, for a GitHub Enterprise
        Server or a proxy that ends TLS. Every user must be able to read it.
      '';
    };

    proxy = mkOption {
      type = types.nullOr (
        types.submodule {
          options = {
            url = mkOption {
              type = types.str;
              example = "http://10.0.0.5:3128";
              description = "Address of the proxy, without credentials.";
            };
            noProxy = mkOption {
              type = types.listOf types.str;
              default = [ ];
              example = [ ".corp.example" ];
              description = "Destinations that are reached without the proxy, as in `NO_PROXY`.";
            };
            credentialsFile = mkOption {
              type = types.nullOr secretFile;
              default = null;
              example = lib.literalExpression "config.age.secrets.github-proxy.path";
              description = ''
                File with one line `USER:PASSWORD`. It must be readable by root, and never be in the
                Nix store. systemd hands it to the daemon as a credential.
              '';
            };
          };
        }
      );
      default = null;
      example = lib.literalExpression ''{ url = "http://10.0.0.5:3128"; }'';
      description = ''
        HTTP proxy on the daemon's way to GitHub. Jobs do not get it: see the `proxy` of a pool.
      '';
    };

    apiVersion = mkOption {
      type = date;
      default = "2022-11-28";
      description = "`X-GitHub-Api-Version` of requests.";
    };

    timeout = mkOption {
      type = duration;
      default = "15s";
      description = "Timeout for one request. A slow answer delays only its slot.";
    };
  };
}
