// Typeset pages (`\(..\)`, marked by pymdownx.arithmatex) and tutorials (`$..$`, as in notebooks).
// Code is left alone: MathJax skips <pre> and <code> by itself.
window.MathJax = {
  tex: {
    inlineMath: [["\\(", "\\)"], ["$", "$"]],
    displayMath: [["\\[", "\\]"], ["$$", "$$"]],
    processEscapes: true,
  },
  options: { ignoreHtmlClass: "highlight|md-nav|md-search|md-header" , enableMenu: false },
  svg: { fontCache: "global" },
};
