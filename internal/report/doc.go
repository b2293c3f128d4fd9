// Package report shows what a run came to: one HTML file that needs nothing
// else, its plots as SVG and PNG files, and single documents with each token
// coloured by its surprisal.
//
// Documents are hostile: every text goes through escape or the plots' own
// escaping, and the page runs one script of ours and asks the network nothing.
//
// Words. Surprisal of a token is its negative log-likelihood in nats. A plot is
// shapes with roles (ink, grid, accent, heat); the page gives roles their
// colours, light or dark, and so does each file.
package report
