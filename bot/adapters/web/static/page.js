// What a tab does by itself: theme, the cast's drawer, enlarging pictures, keeping to the latest message.
// Nothing here talks to the server.

(() => {
  const root = document.documentElement;
  const systemDark = matchMedia("(prefers-color-scheme: dark)");
  const isNarrow = matchMedia("(max-width: 899px)");
  const THEME = "commedia-theme";

  function applyTheme() {
    const chosen = localStorage.getItem(THEME);
    root.dataset.theme = chosen || (systemDark.matches ? "dark" : "light");
  }

  function toggleTheme() {
    const wanted = root.dataset.theme === "dark" ? "light" : "dark";
    const isSystems = (wanted === "dark") === systemDark.matches;
    // Back at the system's choice, follow the system again.
    if (isSystems) localStorage.removeItem(THEME);
    else localStorage.setItem(THEME, wanted);
    applyTheme();
  }

  function openCast() {
    root.dataset.cast = "open";
    const search = document.querySelector(".cast .search");
    search.focus();
    search.select();
  }

  function closeCast() {
    if (root.dataset.cast !== "open") return;
    delete root.dataset.cast;
    if (isNarrow.matches) document.querySelector(".who")?.focus();
  }

  function pickedCast() {
    delete root.dataset.cast;
    if (!isNarrow.matches) document.querySelector(".composer textarea")?.focus();
  }

  function moveInCast(event) {
    const cards = [...document.querySelectorAll(".cast .card")];
    const at = cards.indexOf(document.activeElement);
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step || !cards.length) return;
    event.preventDefault();
    if (at + step < 0) document.querySelector(".cast .search").focus();
    else cards[Math.min(at + step, cards.length - 1)].focus();
  }

  function enlarge(thumb) {
    const small = thumb.querySelector("img");
    const dialog = document.createElement("dialog");
    const picture = document.createElement("img");
    const close = document.createElement("button");
    dialog.className = "enlarged";
    dialog.setAttribute("aria-label", small.alt);
    picture.src = small.src;
    picture.alt = small.alt;
    close.type = "button";
    close.textContent = "×";
    close.setAttribute("aria-label", "Close");
    dialog.append(close, picture);
    dialog.addEventListener("click", () => dialog.close());
    dialog.addEventListener("close", () => {
      dialog.remove();
      thumb.focus();
    });
    document.body.append(dialog);
    dialog.showModal();
  }

  // The log keeps to its end unless somebody scrolled up to read.
  let isAtEnd = true;

  function toEnd(log) {
    isAtEnd = true;
    log.scrollTop = log.scrollHeight;
  }

  function watchLog(log) {
    log.addEventListener("scroll", () => {
      isAtEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 60;
      root.dataset.behind = isAtEnd ? "" : "yes";
    });
    const follow = () => isAtEnd && toEnd(log);
    new MutationObserver(follow).observe(log, { childList: true, subtree: true, characterData: true });
    new ResizeObserver(follow).observe(log);
    log.addEventListener("load", follow, true);
    toEnd(log);
  }

  applyTheme();
  systemDark.addEventListener("change", applyTheme);
  addEventListener("storage", applyTheme);

  addEventListener("click", (event) => {
    const target = event.target.closest("button, a, [data-cast]");
    if (!target) return;
    if (target.matches(".theme")) toggleTheme();
    else if (target.matches(".thumb")) enlarge(target);
    else if (target.matches(".latest")) toEnd(document.querySelector(".log"));
    else if (target.matches(".prose a")) {
      event.preventDefault();
      open(target.href, "_blank", "noopener,noreferrer");
    } else if (target.dataset.cast === "open") openCast();
    else if (target.dataset.cast === "close") closeCast();
    else if (target.dataset.cast === "pick") pickedCast();
  });

  addEventListener("keydown", (event) => {
    if (event.key === "Escape") closeCast();
    else if (event.target.closest?.(".cast")) moveInCast(event);
  });

  addEventListener("commedia-sent", () => {
    isAtEnd = true;
  });

  const waiting = new MutationObserver(() => {
    const log = document.querySelector(".log");
    if (!log) return;
    waiting.disconnect();
    watchLog(log);
  });
  waiting.observe(root, { childList: true, subtree: true });
})();
