import init from "dashboard";

init({ module_or_path: new URL("dashboard.wasm", import.meta.url) }).catch((error) => {
  console.error(error);
  document.querySelector("[data-part=failed]").hidden = false;
});
