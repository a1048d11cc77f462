# One workerd: the Worker, its shards and their folder. Run it with
#   workerd serve workerd.capnp -s http=ADDRESS -d storage=FOLDER
# and CATCHMENT_SECRET, PLACEMENT and RELAY_TOKEN in the environment.
using Workerd = import "/workerd/workerd.capnp";

const config :Workerd.Config = (
  services = [
    (name = "edge", worker = .edge),
    # Relays may stand in a private network.
    (name = "internet", network = (allow = ["public", "private"], tlsOptions = (trustBrowserCas = true))),
    (name = "storage", disk = (writable = true)),
  ],
  sockets = [(name = "http", http = (), service = "edge")],
);

const edge :Workerd.Worker = (
  modules = [
    (name = "worker.js", esModule = embed "worker.js"),
    (name = "scripts.js", esModule = embed "scripts.js"),
    (name = "sdk.js", esModule = embed "sdk.js"),
    (name = "catchment_bg.js", esModule = embed "catchment_bg.js"),
    (name = "catchment_bg.wasm", wasm = embed "catchment_bg.wasm"),
    # snippets
  ],
  compatibilityDate = "2026-10-01",
  bindings = [
    (name = "CATCHMENT_SECRET", fromEnvironment = "CATCHMENT_SECRET"),
    (name = "PLACEMENT", fromEnvironment = "PLACEMENT"),
    (name = "RELAY_TOKEN", fromEnvironment = "RELAY_TOKEN"),
    (name = "COUNTRY_HEADER", fromEnvironment = "COUNTRY_HEADER"),
    (name = "SHARD", durableObjectNamespace = "Shard"),
  ],
  durableObjectNamespaces = [(className = "Shard", uniqueKey = "catchment-shard", enableSql = true)],
  durableObjectStorage = (localDisk = "storage"),
);
