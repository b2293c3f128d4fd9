package shard

const arrowSchemaKey = "ARROW:schema"

func arrowSchema(c *Columns, perToken bool) string { return "" }
