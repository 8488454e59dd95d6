// Completion of metric names and functions at the caret of the expression.

const WORD = /[a-zA-Z_:][a-zA-Z0-9_:]*$/;
const MOST = 50;
const FUNCTIONS = (
  "abs absent absent_over_time acos acosh asin asinh atan atanh avg avg_over_time bottomk ceil changes clamp clamp_max " +
  "clamp_min cos cosh count count_over_time count_values day_of_month day_of_week day_of_year days_in_month deg delta " +
  "deriv exp floor group histogram_quantile hour idelta increase info irate label_join label_replace last_over_time " +
  "limitk ln log10 log2 max max_over_time min min_over_time minute month pi predict_linear present_over_time quantile " +
  "quantile_over_time rad rate resets round scalar sgn sin sinh sort sort_by_label sort_by_label_desc sort_desc sqrt " +
  "stddev stddev_over_time stdvar stdvar_over_time sum sum_over_time tan tanh time timestamp topk vector year"
).split(" ");

/** Offers completions below `input` in `list`. `names()` gives [[metric, note]]. */
export function attachCompletion(input, list, names) {
  let chosen = -1;

  function word() {
    const before = input.value.slice(0, input.selectionStart);
    // Within quotes, braces or brackets stand labels and durations, not metrics.
    if ((before.match(/"/g) ?? []).length % 2) return "";
    if (before.lastIndexOf("{") > before.lastIndexOf("}") || before.lastIndexOf("[") > before.lastIndexOf("]")) return "";
    return WORD.exec(before)?.[0] ?? "";
  }

  function close() {
    list.hidden = true;
    chosen = -1;
    input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant");
  }

  function choose(index) {
    chosen = index;
    [...list.children].forEach((item, at) => item.setAttribute("aria-selected", String(at === index)));
    const item = list.children[index];
    if (!item) return;
    input.setAttribute("aria-activedescendant", item.id);
    item.scrollIntoView({ block: "nearest" });
  }

  function accept(text) {
    const caret = input.selectionStart;
    const begin = caret - word().length;
    input.setRangeText(text, begin, caret, "end");
    input.dispatchEvent(new Event("change"));
    close();
    input.focus();
  }

  function offer() {
    const typed = word().toLowerCase();
    if (typed.length < 1) return close();
    const known = [...names(), ...FUNCTIONS.map((name) => [name, "function"])];
    const rank = (name) => (name.toLowerCase().startsWith(typed) ? 0 : 1);
    const found = known
      .filter(([name]) => name.toLowerCase().includes(typed) && name.toLowerCase() !== typed)
      .sort(([a], [b]) => rank(a) - rank(b) || a.length - b.length || (a < b ? -1 : 1))
      .slice(0, MOST);
    if (!found.length) return close();
    list.replaceChildren(...found.map(([name, note], index) => {
      const item = document.createElement("li");
      item.id = `choice-${index}`;
      item.setAttribute("role", "option");
      item.append(name);
      const small = document.createElement("small");
      small.textContent = note;
      item.append(small);
      item.addEventListener("pointerdown", (event) => {
        event.preventDefault();
        accept(name);
      });
      return item;
    }));
    list.hidden = false;
    input.setAttribute("aria-expanded", "true");
    choose(-1);
  }

  input.addEventListener("input", offer);
  input.addEventListener("blur", close);
  input.addEventListener("keydown", (event) => {
    if (list.hidden) return;
    const last = list.children.length - 1;
    if (event.key === "ArrowDown") choose(chosen >= last ? 0 : chosen + 1);
    else if (event.key === "ArrowUp") choose(chosen <= 0 ? last : chosen - 1);
    else if (event.key === "Escape") close();
    else if ((event.key === "Enter" || event.key === "Tab") && chosen >= 0) accept(list.children[chosen].firstChild.data);
    else return;
    event.preventDefault();
    event.stopImmediatePropagation();
  });
}
