// The reference with a filter and copy buttons; the page is whole without.

const navigation = document.querySelector("nav");
const articles = [...document.querySelectorAll("article.operation")];
const links = new Map(
  [...navigation.querySelectorAll("li a")].map((link) => [link.hash.slice(1), link.parentElement]),
);
const words = new Map(articles.map((article) => [article, article.textContent.toLowerCase()]));

const field = document.createElement("input");
field.type = "search";
field.placeholder = "Filter  /";
field.setAttribute("aria-label", "Filter the endpoints");
field.setAttribute("aria-describedby", "found");
const found = document.createElement("p");
found.id = "found";
found.setAttribute("role", "status");
document.querySelector("#filter").append(field, found);

const heading = (list) => list.previousElementSibling;

function filter() {
  const asked = field.value.trim().toLowerCase().split(/\s+/).filter(Boolean);
  let count = 0;
  for (const article of articles) {
    const shown = asked.every((word) => words.get(article).includes(word));
    count += shown;
    article.hidden = !shown;
    links.get(article.id).hidden = !shown;
  }
  for (const list of navigation.querySelectorAll("ul")) {
    const empty = [...list.children].every((item) => item.hidden);
    list.hidden = empty;
    heading(list).hidden = empty;
  }
  for (const section of document.querySelectorAll("section")) {
    const own = [...section.querySelectorAll("article.operation")];
    section.hidden = own.length > 0 && own.every((article) => article.hidden);
  }
  found.textContent = asked.length === 0 ? "" : `${count} of ${articles.length}`;
}

field.addEventListener("input", filter);
// A link from outside, or from within, to what the filter hides: the filter gives way.
addEventListener("hashchange", () => {
  const target = document.getElementById(location.hash.slice(1));
  if (target?.closest("[hidden]")) {
    field.value = "";
    filter();
    target.scrollIntoView();
  }
});
document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, textarea");
  if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey) {
    event.preventDefault();
    field.focus();
  } else if (event.key === "Escape" && event.target === field) {
    field.value = "";
    filter();
  }
});

function select(element) {
  const range = document.createRange();
  range.selectNodeContents(element);
  const selection = getSelection();
  selection.removeAllRanges();
  selection.addRange(range);
}

for (const example of document.querySelectorAll("pre.example")) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "Copy";
  button.addEventListener("click", async () => {
    const code = example.querySelector("code");
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "Copied";
    } catch {
      select(code);
      button.textContent = "Press Ctrl+C";
    }
    setTimeout(() => (button.textContent = "Copy"), 2000);
  });
  example.append(button);
}
