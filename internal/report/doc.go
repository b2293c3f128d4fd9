// Package report shows the results of a run: one self-contained HTML file, its plots as
// SVG and PNG files, and single documents with each token coloured by its surprisal.
//
// Documents are hostile: every text goes through escape or the plots' own escaping. The
// page runs one script of ours and makes no network request.
//
// Words. Surprisal of a token is its negative log-likelihood in nats. A plot is
// shapes with roles (ink, grid, accent, heat); the page gives roles their
// colours, light or dark, and so does each file.
package report
