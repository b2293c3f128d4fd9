// Package compact reads Thrift's compact protocol straight from bytes. parquet-go's
// decoder allocates by the list lengths that the bytes claim and recurses as deep as
// they nest, so that a hostile footer of a few bytes ends the process; this one does
// neither.
//
// Glossary: a Reader reads values in order; Struct visits the fields of a struct, and
// those that its caller does not read are skipped, at most 32 levels deep.
package compact
