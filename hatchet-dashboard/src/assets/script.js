// Shows what is new: after an event of the server it fetches the page again and takes its main part. It rests while the
// page is hidden, and while somebody fills in a form or selects text.
(() => {
  "use strict";
  const main = document.querySelector("main[data-live]");
  const mark = document.getElementById("live");
  if (!main || !window.EventSource || !window.DOMParser) return;

  let source = null;
  // The mark of what is shown: events with the same one bring nothing new.
  let shown = main.dataset.mark;
  let isBusy = false;
  let isStale = false;

  const isUsed = () => {
    const active = document.activeElement;
    const selection = window.getSelection();
    return (active && main.contains(active) && active.matches("input, select, textarea"))
      || (selection && !selection.isCollapsed && main.contains(selection.anchorNode))
      || Array.from(main.querySelectorAll("input, textarea")).some((field) =>
        field.type === "checkbox" ? field.checked !== field.defaultChecked : field.value !== field.defaultValue);
  };

  const refresh = async () => {
    if (isBusy || isUsed()) { isStale = true; return; }
    isBusy = true;
    isStale = false;
    try {
      const answer = await fetch(location.href, { credentials: "same-origin", redirect: "error" });
      if (!answer.ok) return;
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const fresh = page.querySelector("main");
      if (!fresh) return;
      // Somebody began to type meanwhile: later, then.
      if (isUsed()) { isStale = true; return; }
      main.querySelectorAll("details[id]").forEach((open) => {
        const same = fresh.querySelector("#" + CSS.escape(open.id));
        if (same) same.open = open.open;
      });
      main.replaceChildren(...fresh.childNodes);
    } catch {
      // The next event tries again.
    } finally {
      isBusy = false;
    }
  };

  const close = () => {
    if (source) source.close();
    source = null;
    mark.textContent = "";
  };

  const changed = (event) => {
    if (event.lastEventId !== shown) refresh();
    shown = event.lastEventId;
    if (event.type === "run" && ["succeeded", "failed", "cancelled", "expired"].includes(JSON.parse(event.data).status)) close();
  };

  const open = () => {
    if (source || document.hidden) return;
    source = new EventSource(main.dataset.live);
    source.addEventListener("open", () => { mark.textContent = "live"; });
    source.addEventListener("error", () => { mark.textContent = "not live"; });
    source.addEventListener("run", changed);
    source.addEventListener("change", changed);
  };

  document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
  window.setInterval(() => { if (isStale && !document.hidden) refresh(); }, 2000);
  open();
})();
