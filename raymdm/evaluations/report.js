"use strict";
(() => {
  const articles = [...document.querySelectorAll("article")];
  const texts = articles.map((article) => article.textContent.toLowerCase());
  const words = document.getElementById("words"), shown = document.getElementById("shown");
  const buttons = [...document.querySelectorAll("#filter button")];
  let kind = "all";

  function filter() {
    const wanted = words.value.toLowerCase();
    let count = 0;
    articles.forEach((article, at) => {
      const kinds = article.dataset.kind.split(" ");
      article.hidden = !((kind === "all" || kinds.includes(kind)) && texts[at].includes(wanted));
      count += !article.hidden;
    });
    shown.textContent = `${count} of ${articles.length} examples`;
  }

  words.addEventListener("input", filter);
  buttons.forEach((button) => button.addEventListener("click", () => {
    kind = button.dataset.kind;
    buttons.forEach((other) => other.setAttribute("aria-pressed", String(other === button)));
    filter();
  }));
  document.getElementById("filter").hidden = articles.length === 0;
  filter();
})();
