// The pages with more comfort; they are whole without.
//
// No markup is ever made of text here: everything that comes from elsewhere goes through
// textContent and value, and the policy of the pages forbids anything else.

const lang = document.documentElement.lang;
const all = (selector, within = document) => [...within.querySelectorAll(selector)];

for (const part of all("[data-needs-script]")) part.hidden = false;

// --- times: in the zone of whoever looks, with UTC in the title ---

const styles = {
  instant: { dateStyle: "medium", timeStyle: "short" },
  day: { dateStyle: "long" },
};
for (const time of all("time[data-time]")) {
  const at = new Date(time.dateTime);
  const style = styles[time.dataset.time];
  if (Number.isNaN(at.getTime())) continue;
  if (style) {
    time.title = time.textContent;
    time.textContent = new Intl.DateTimeFormat(lang, style).format(at);
  } else {
    const local = new Intl.DateTimeFormat(lang, { dateStyle: "medium", timeStyle: "long" });
    time.title = `${local.format(at)} (${time.title})`;
  }
}

// --- passwords and keys that can be looked at ---

const isMasked = (field) =>
  field.classList.contains("secret")
    ? !field.classList.contains("shown") // a key is no password: no manager shall offer to keep it
    : field.type === "password";
const mask = (field, masked) => {
  if (field.classList.contains("secret")) field.classList.toggle("shown", !masked);
  else field.type = masked ? "password" : "text";
};
for (const button of all("[data-unmask]")) {
  const field = document.getElementById(button.dataset.unmask);
  const text = button.querySelector("[data-text]");
  const show = text.textContent;
  button.hidden = false;
  button.setAttribute("aria-pressed", "false");
  button.addEventListener("click", () => {
    const masked = !isMasked(field);
    mask(field, masked);
    text.textContent = masked ? show : button.dataset.hide;
    button.setAttribute("aria-pressed", String(!masked));
  });
  button.form?.addEventListener("submit", () => mask(field, true)); // so that it can be kept
}

// --- the key, this once ---

const shown = document.querySelector("[data-reveal]");
const secret = shown?.querySelector("#key");
if (secret) {
  const said = shown.querySelector("[data-said]");
  let kept = false;
  // Reloading and coming back show the page of the key, not the form's answer.
  history.replaceState(null, "", shown.dataset.address);

  const env = () => `API_KEY=${secret.value}\n`;
  const call = shown.dataset.call;
  const forms = {
    plain: () => secret.value,
    env,
    curl: () => `curl -H "Authorization: Bearer ${secret.value}" ${call}`,
    // Code and CI read the key from where it is kept: it is not in what they are given.
    python: () =>
      "import os\nimport urllib.request\n\n" +
      `request = urllib.request.Request("${call}")\n` +
      'request.add_header("Authorization", f"Bearer {os.environ[\'API_KEY\']}")\n' +
      "print(urllib.request.urlopen(request).read().decode())\n",
    github: () => "gh secret set API_KEY",
  };
  const say = (text) => {
    said.textContent = "";
    requestAnimationFrame(() => {
      said.textContent = text;
    });
  };
  for (const button of all("[data-copy]", shown)) {
    button.hidden = false;
    button.addEventListener("click", async () => {
      try {
        const text = forms[button.dataset.copy]();
        await navigator.clipboard.writeText(text);
        kept ||= text.includes(secret.value);
        say(text.includes(secret.value) ? said.dataset.copied : said.dataset.without);
      } catch {
        // Not copied, and not said so: select it for the person to copy.
        mask(secret, false);
        secret.focus();
        secret.select();
        say(said.dataset.byHand);
      }
    });
  }
  secret.addEventListener("focus", () => secret.select());
  secret.addEventListener("copy", () => {
    kept = true;
  });
  shown.querySelector("[data-download]")?.addEventListener("click", () => {
    const file = URL.createObjectURL(new Blob([env()], { type: "text/plain" }));
    const link = document.createElement("a");
    link.href = file;
    link.download = "api-key.env";
    link.click();
    URL.revokeObjectURL(file);
    kept = true;
    say(said.dataset.downloaded);
  });
  addEventListener("beforeunload", (event) => {
    if (!kept) {
      event.preventDefault();
      event.returnValue = shown.dataset.leave;
    }
  });
  // A page that is put aside for coming back must not bring the key back.
  addEventListener("pagehide", () => {
    secret.value = "";
    secret.removeAttribute("value");
  });
  addEventListener("pageshow", (event) => {
    if (event.persisted) location.replace(shown.dataset.address);
  });
}

for (const receipt of all("[data-receipt]")) {
  history.replaceState(null, "", receipt.dataset.address);
}

// --- the first call ---

const first = document.querySelector("[data-first-call]:not([hidden])");
if (first) {
  let waits = 1000;
  const until = Date.now() + 10 * 60_000; // a tab that is left open keeps no login alive
  const look = async () => {
    if (Date.now() > until) {
      first.textContent = first.dataset.stopped;
      return;
    }
    if (document.hidden) {
      document.addEventListener("visibilitychange", look, { once: true });
      return;
    }
    try {
      const answer = await fetch(first.dataset.firstCall, {
        headers: { accept: "application/json" },
        credentials: "same-origin",
      });
      if (answer.status === 401 || answer.status === 404) {
        first.textContent = first.dataset.stopped;
        return;
      }
      const key = answer.ok ? await answer.json() : {};
      if (key.lastRequest && key.lastRequest !== first.dataset.since) {
        const time = new Intl.DateTimeFormat(lang, { timeStyle: "medium" });
        first.classList.add("works");
        first.textContent = first.dataset.works
          .replace("{time}", time.format(new Date(key.lastRequest)))
          .replace("{ip}", `\u2068${key.lastUsedIp ?? "?"}\u2069`);
        return;
      }
    } catch {
      // The network is gone for a moment: look again later.
    }
    waits = Math.min(waits * 1.2, 10_000);
    setTimeout(look, waits);
  };
  setTimeout(look, waits);
}

// --- dialogs instead of pages ---

for (const opener of all("[data-dialog]")) {
  const dialog = document.getElementById(opener.dataset.dialog);
  if (!dialog) continue;
  opener.setAttribute("aria-haspopup", "dialog");
  opener.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    dialog.showModal();
  });
  for (const close of all("[data-close]", dialog)) {
    close.addEventListener("click", () => dialog.close());
  }
  dialog.addEventListener("close", () => opener.focus());
}

// --- the list ---

const selection = document.querySelector("[data-selection]");
if (selection) {
  const boxes = all('input[name="key"]', selection);
  const every = selection.querySelector("[data-select-all]");
  const count = selection.querySelector("[data-selected]");
  const idle = count.textContent;
  const buttons = all(".bulk button", selection);
  const update = () => {
    const n = boxes.filter((box) => box.checked).length;
    every.checked = n === boxes.length && n > 0;
    every.indeterminate = n > 0 && n < boxes.length;
    count.textContent = n
      ? count.dataset.selected.replace("{n}", new Intl.NumberFormat(lang).format(n))
      : idle;
    for (const button of buttons) button.disabled = n === 0;
  };
  every.addEventListener("change", () => {
    for (const box of boxes) box.checked = every.checked;
    update();
  });
  for (const box of boxes) box.addEventListener("change", update);
  addEventListener("pageshow", update);
  update();
}

// --- forms ---

for (const field of all("[data-chooses]")) {
  field.addEventListener("input", () => {
    document.getElementById(field.dataset.chooses).checked = true;
  });
}

for (const scopes of all("[data-scopes]")) {
  const custom = scopes.parentElement.querySelector("[data-custom]");
  for (const box of all('input[type="checkbox"]', scopes)) {
    box.addEventListener("change", () => {
      custom.checked = true;
    });
  }
  const search = scopes.querySelector("[data-search-scopes]");
  search.addEventListener("input", () => {
    const asked = search.value.trim().toLowerCase();
    for (const label of all(".scope label", scopes)) {
      const box = label.querySelector("input");
      label.hidden = !box.value.toLowerCase().includes(asked) && !box.checked;
    }
    for (const scope of all(".scope", scopes)) {
      scope.hidden = all("label", scope).every((label) => label.hidden);
    }
  });
}

// A second click while the first is on its way sends nothing.
for (const form of all('form[method="post"]')) {
  form.addEventListener("submit", (event) => {
    if (form.dataset.sent) {
      event.preventDefault();
      return;
    }
    form.dataset.sent = "yes";
    form.setAttribute("aria-busy", "true");
  });
}
addEventListener("pageshow", () => {
  for (const form of all("form[data-sent]")) {
    delete form.dataset.sent;
    form.removeAttribute("aria-busy");
  }
});

// --- shortcuts: one key each, so they can be switched off (WCAG 2.1.4) ---

const OFF = "keybearer.shortcuts";
const stored = () => {
  try {
    return localStorage.getItem(OFF);
  } catch {
    return null;
  }
};
const wanted = document.querySelector("[data-shortcuts]");
if (wanted) {
  wanted.checked = stored() !== "off";
  wanted.addEventListener("change", () => {
    try {
      localStorage.setItem(OFF, wanted.checked ? "on" : "off");
    } catch {
      // Storage is closed to us: the choice lasts as long as the page.
    }
  });
  document.addEventListener("keydown", (event) => {
    const busy = event.target.closest("input, textarea, select, dialog[open]");
    if (busy || event.ctrlKey || event.metaKey || event.altKey || !wanted.checked) return;
    const target = all("[data-shortcut]").find((each) => each.dataset.shortcut === event.key);
    if (!target) return;
    event.preventDefault();
    if (target.tagName === "INPUT") target.focus();
    else target.click();
  });
}
