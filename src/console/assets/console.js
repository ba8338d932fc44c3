// What makes pages live. They are whole without it: this fetches the same page again and puts its live parts in place.
"use strict";

const EVERY_MS = 2000;
const STILLS_EVERY_MS = 10000;

/** The live parts by their names; only those whose words changed are touched, so that nothing flickers. */
const replace = (fresh) => {
  for (const part of document.querySelectorAll("[data-live]")) {
    const newer = fresh.getElementById(part.id);
    if (!newer || newer.innerHTML === part.innerHTML) continue;
    const focused = part.contains(document.activeElement) ? document.activeElement.id : "";
    const open = [...part.querySelectorAll("details")].map((details) => details.open);
    part.replaceChildren(...document.adoptNode(newer).childNodes);
    part.querySelectorAll("details").forEach((details, i) => { details.open = open[i] ?? details.open; });
    if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
  }
};

let asking = false;

const refresh = async () => {
  if (document.hidden || asking) return;
  asking = true;
  try {
    const answer = await fetch(location.href, { credentials: "same-origin", cache: "no-store" });
    // The time of being signed in is over.
    if (answer.redirected) {
      location.reload();
      return;
    }
    if (answer.ok) replace(new DOMParser().parseFromString(await answer.text(), "text/html"));
  } catch {
    // The daemon is away for a moment; what is shown stays.
  } finally {
    asking = false;
  }
};

if (document.querySelector("[data-live]")) {
  // What was done once is not told for ever, and not again by a reload.
  const address = new URL(location.href);
  if (address.searchParams.has("done")) {
    address.searchParams.delete("done");
    history.replaceState(null, "", address);
  }
  setInterval(refresh, EVERY_MS);
  document.addEventListener("visibilitychange", refresh);
}

const stills = document.querySelectorAll("img[data-refresh]");
if (stills.length) {
  const seen = new Set();
  const watch = new IntersectionObserver((changes) => {
    for (const { target, isIntersecting } of changes) isIntersecting ? seen.add(target) : seen.delete(target);
  });
  stills.forEach((still) => watch.observe(still));
  setInterval(() => {
    if (document.hidden) return;
    for (const still of seen) {
      const address = new URL(still.src);
      address.searchParams.set("at", Date.now());
      still.src = address;
    }
  }, STILLS_EVERY_MS);
}

for (const button of document.querySelectorAll("[data-print]")) {
  button.hidden = false;
  button.addEventListener("click", () => print());
}
