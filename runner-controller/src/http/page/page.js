"use strict";
// Keeps the page live. Without this script, the browser loads the page again every 15 s.
const main = document.querySelector("main");
const summary = document.getElementById("summary");
const live = document.getElementById("live");
const AGAIN_MS = 10000;

function say(element, text) {
  // A screen reader reads only what changes.
  if (element.textContent !== text) {
    element.textContent = text;
  }
}

function isBeingSelected() {
  const selection = document.getSelection();
  return selection && !selection.isCollapsed && main.contains(selection.anchorNode);
}

function show(event) {
  const next = JSON.parse(event.data);
  document.title = next.title;
  say(summary, next.summary);
  summary.className = next.healthy ? "state good" : "state bad";
  if (!isBeingSelected()) {
    const focused = main.contains(document.activeElement) ? document.activeElement.id : "";
    // The daemon escaped every text in it.
    main.innerHTML = next.main;
    document.getElementById(focused)?.focus({ preventScroll: true });
  }
  document.body.classList.remove("old");
  say(live, "live");
}

function connect() {
  const source = new EventSource("events");
  source.addEventListener("status", show);
  source.addEventListener("error", () => {
    // The daemon ends each stream after a while, and the browser connects again by itself.
    lost = setTimeout(() => {
      document.body.classList.add("old");
      say(live, "the daemon does not answer, so this page is old");
    }, AGAIN_MS);
    if (source.readyState === EventSource.CLOSED) {
      setTimeout(connect, AGAIN_MS);
    }
  });
  source.addEventListener("open", () => clearTimeout(lost));
}

let lost;
connect();
