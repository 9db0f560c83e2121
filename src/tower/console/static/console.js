"use strict";
// The state and the output of the page's run or app, as the server sends them. The server escapes all values.
const state = document.querySelector("[data-events]");
if (state) {
  const log = document.getElementById("log");
  const source = new EventSource(state.dataset.events);
  source.addEventListener("begin", () => { log.textContent = ""; });
  source.addEventListener("state", (event) => {
    // what somebody has opened stays open: they are about to press what is in it
    const open = Array.from(state.querySelectorAll("details[open]"), (each) => each.className);
    state.innerHTML = JSON.parse(event.data);
    for (const each of state.querySelectorAll("details")) { each.open = open.includes(each.className); }
  });
  source.addEventListener("log", (event) => {
    const below = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
    log.append(JSON.parse(event.data).join(""));
    if (below) { log.scrollTop = log.scrollHeight; }
  });
  source.addEventListener("end", () => source.close());
  source.addEventListener("gone", () => { source.close(); location.reload(); });
}
