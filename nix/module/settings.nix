# Translation of the options into the program's configuration file.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.services.runner-controller;
  system = name: cfg.build.containers.${name}.config.system.build.toplevel;
  # List of the store paths in the image, for the Nix daemon in the container.
  registration = name: "${pkgs.closureInfo { rootPaths = [ (system name) ]; }}/registration";

  # Returns a proxy's table, without the options that a pool's proxy does not have.
  proxy =
    given:
    if given == null then
      null
    else
      {
        inherit (given) url;
        no_proxy = given.noProxy;
        credentials_file = given.credentialsFile or null;
      };

  scope = given: {
    inherit (given) url timeout;
    token_file = given.tokenFile;
    app =
      if given.app == null then
        null
      else
        {
          inherit (given.app) id;
          key_file = given.app.keyFile;
        };
    api_url = given.apiUrl;
    mints_per_minute = given.mintsPerMinute;
    ca_file = given.caFile;
    proxy = proxy given.proxy;
    api_version = given.apiVersion;
  };

  # Lists are left out if they are empty, as if nothing was set.
  nonEmpty = list: if list == [ ] then null else list;
  present = lib.filterAttrs (_: value: value != null);
  orNull =
    values: if lib.any (value: value != null) (lib.attrValues values) then values else null;

  entry =
    entry:
    present {
      inherit (entry) days hours;
      time_zone = entry.timeZone;
      min_idle = entry.minIdle;
      min_spare = entry.minSpare;
      max_runners = entry.maxRunners;
    };

  priority = priority: {
    inherit (priority)
      name
      repository
      workflow
      job
      ;
    escalate_after = priority.escalateAfter;
  };

  pool = name: pool: {
    inherit (pool)
      allow
      capabilities
      demand
      devices
      docker
      egress
      environment
      labels
      nix
      offset
      scope
      substituters
      ;
    scale_set = pool.scaleSet;
    trusted_public_keys = pool.trustedPublicKeys;
    runner_group = pool.group;
    scale_down_after = pool.scaleDownAfter;
    min_idle = pool.minIdle;
    min_spare = pool.minSpare;
    max_runners = pool.maxRunners;
    schedule = nonEmpty (map entry pool.schedule);
    image =
      if pool.image.directory != null then
        {
          kind = "directory";
          path = toString pool.image.directory;
          runner_root = pool.image.runnerRoot;
        }
      else
        {
          kind = "nixos";
          system = "${system name}";
          runner_root = pool.image.runnerRoot;
          registration = if pool.nix then registration name else null;
        };
    layer = { inherit (pool.layer) kind size; };
    limits = {
      inherit (pool.limits) memory cpu tasks;
      io_weight = pool.limits.ioWeight;
      open_files = pool.limits.openFiles;
      control_groups = pool.limits.controlGroups;
      control_group_depth = pool.limits.controlGroupDepth;
      inotify_instances = pool.limits.inotifyInstances;
      inotify_watches = pool.limits.inotifyWatches;
      user_namespaces = pool.limits.userNamespaces;
      pending_signals = pool.limits.pendingSignals;
      inherit (pool.limits) connections terminals namespaces;
    };
    total = { inherit (pool.total) memory cpu tasks; };
    timeouts = {
      inherit (pool.timeouts)
        boot
        registration
        job
        stop
        ;
      spare_age = pool.timeouts.spareAge;
      idle_age = pool.timeouts.idleAge;
    };
    binds = map (bind: {
      inherit (bind) from to;
      read_only = bind.readOnly;
    }) pool.binds;
    work_folder = pool.workFolder;
    proxy = proxy pool.proxy;
  };

  values = {
    inherit (cfg) host mode reconcile;
    layer_dir = cfg.layerDir;
    api_token_file = cfg.apiTokenFile;
    inherit (cfg) notify;
    history = orNull cfg.history;
    logs = orNull cfg.logs;
    reserve = orNull cfg.reserve;
    budget = orNull { inherit (cfg.budget) memory cpu runners; };
    queue = orNull {
      fairness_age = cfg.queue.fairnessAge;
      reserve_after = cfg.queue.reserveAfter;
      max_per_repository = cfg.queue.maxPerRepository;
    };
    priority = nonEmpty (map priority cfg.priority);
    webhook =
      if cfg.webhook == null then
        null
      else
        {
          listen = "127.0.0.1:${toString cfg.webhook.port}";
          secret_file = cfg.webhook.secretFile;
          next_secret_file = cfg.webhook.nextSecretFile;
        };
    listen = lib.optional cfg.prometheus.enable cfg.prometheus.target;
    github = if cfg.scopes == { } then scope cfg.github else null;
    scopes = if cfg.scopes == { } then null else lib.mapAttrs (_: scope) cfg.scopes;
    network = {
      inherit (cfg.network) block resolvers;
      uid_base = cfg.network.uidBase;
    };
    pools = lib.mapAttrs pool cfg.pools;
  };
in
{
  config = lib.mkIf cfg.enable {
    # TOML has no null. An option without a value is left out, and the program uses its default.
    services.runner-controller.settings = lib.mapAttrsRecursive (_: lib.mkDefault) (
      lib.filterAttrsRecursive (_: value: value != null) values
    );
  };
}
