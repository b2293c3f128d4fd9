// Package where is the language of filters: `perplexity < p60 and language == "en"`.
//
// An expression compares columns, numbers, texts and percentiles:
//
//	or  and  not  ( )
//	<  <=  >  >=  ==  =  !=  <>
//	x between a and b        both ends belong to it
//	x in (a, b, …)           x not in (…), x not between …
//	x is null                x is not null
//
// p5, p60, p99.9 is a percentile of the column that it is compared with.
// Texts are in single or double quotes, doubled inside to stand for themselves;
// a column whose name is no word, or words joined by dots (a field), is in backquotes. Nulls are SQL's: a comparison
// with one is neither true nor false, and a row passes only where the whole is true.
package where
