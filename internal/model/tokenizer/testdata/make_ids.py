#!/usr/bin/env python3
"""Makes ids.json and demo_texts.json.gz: texts and the ids that Hugging Face's
own library gives for them. The Go tests hold the package to these.

    pip install tokenizers==0.23.3 duckdb
    python3 internal/model/tokenizer/testdata/make_ids.py

A case is {name, parts: [[text, times], ...]}; its ids are listed when there are
at most 600 of them, else counted and hashed (sha256 of little-endian int32).
`letters` parts are made by a small generator that both languages have.
"""
import array, gzip, hashlib, json, os, sys
import tokenizers

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.normpath(os.path.join(HERE, "..", "..", "..", ".."))
FILES = {"demo": "examples/demo/model/tokenizer.json", "llama": "testdata/tokenizer/tokenizer.json",
         "bytelevel": "internal/model/tokenizer/testdata/bytelevel.json"}
MB = 1 << 20


def letters(n, seed=1):
    """n pseudo-random lower-case letters (a 32-bit LCG's high bits)."""
    out, x = bytearray(n), seed
    for i in range(n):
        x = (x * 1664525 + 1013904223) & 0xFFFFFFFF
        out[i] = 97 + (x >> 16) % 26
    return out.decode()


def text_of(case):
    return "".join(letters(p[1]) if p[0] == "letters" else p[0] * p[1] for p in case["parts"])


def small():
    one = lambda name, text: {"name": name, "parts": [[text, 1]]}
    texts = ["", " ", "  ", "   ", "a", " a", "a ", " a ", "  a  ", "\n", "\n\n", "\t", "\r\n", "a\r\nb", "a\n", "\na", " \n ", "a\tb\t\tc",
             "\u2581", "\u2581a", "a\u2581b", " \u2581 ", "\u2581\u2581\u2581", "Hello, world!", "hello  world   again    now",
             "👨‍👩‍👧‍👦", "a👍🏽b", "🏳️‍🌈 flag", "漢字かな交じり文。テスト", "한국어 텍스트", "שלום עולם", "مرحبا بالعالم", "Ünïcödé", "e\u0301 a\u0308o\u0302",
             "\u202eabc\u202c", "\ufeffabc", "abc\ufeff", "\ufffd", "a\ufffdb", "\ue000\uf8ff", "\U0010ffff", "\U000f0000 x", "\u2028\u2029", "\u00a0a\u00a0b",
             "\u3000全角", "\u200b\u200c\u200d", "ﬁ ﬂ ½ ²", "I\u0307 ı ß ẞ", "𝕳𝖊𝖑𝖑𝖔", "<s>", "</s>", "<unk>", "<s><s>x", "a<s>b", " <s> ", "a <s> b", "<s", "s>", "< s>", "<s> </s>",
             "x</s>\n<s>y", "<unk> <unk>a", "<0x00>", "<0x0A>", "a<0x41>b", "<0x01>\u0001", "\u2581<s>", "<s>\u2581a", "<s>a<s>  b<s>", "</s></s></s>",
             "def f(x):\n    return x + 1\n", "a.b.c(d, e)->f;", "https://example.org/a?b=c&d=%20", "1234567890 3.14159 1e-9", "C:\\path\\file", "\"quoted\" 'single' `back`",
             "don't can't won't I'll", "\u007f", "\u0080\u009f", "".join(chr(i) for i in range(1, 128)), "".join(chr(i) for i in range(0x80, 0x180)), "".join(chr(i) for i in range(1, 32)) * 3]
    yield from (one(f"text {i}", t) for i, t in enumerate(texts))
    nuls = ["\0", "\0\0\0", "a\0", "\0a", "a\0b", " \0 ", "\0 a \0", "a\0\0\0b", "\0<s>\0", "a\0\u0001b", "\u0001\0\u0001", "\0\n\0", "<0x00>\0<0x01>\u0001", "漢\0字", "\0" + "".join(chr(i) for i in range(1, 32)),
            "".join(chr(i) for i in range(0, 32)) * 3, "".join(chr(i) for i in range(31, -1, -1)) * 2 + "end", "a \0 b", "a\0 b\0 c", "\0" * 40 + "x"]
    yield from (one(f"nul {i}", t) for i, t in enumerate(nuls))


def long():
    c = lambda name, *parts: {"name": name, "parts": [list(p) for p in parts]}
    yield c("400 spaces", [" ", 400])
    yield c("spaces and a word", [" ", 333], ["word", 1], [" ", 777])
    yield c("400 newlines", ["\n", 400])
    yield c("10000 a", ["a", 10000])
    yield c("100000 letters", ["letters", 100000])
    yield c("sentences", ["The quick brown fox jumps over the lazy dog. ", 3000])
    yield c("code", ["def f(x):\n\treturn [y for y in x if y]  # comment\n\n", 2000])
    yield c("specials", ["some <s>text</s> with<unk> them <s> ", 3000])
    yield c("adjacent specials", ["<s></s>", 9000])
    yield c("nuls in text", ["word\0 and \0more\0\0 ", 6000])
    yield c("nuls alone", ["\0", 50000])
    yield c("wide", ["a\0", 40000])
    yield c("all controls", ["".join(chr(i) for i in range(32)), 3000])
    yield c("all controls and text", ["a " + " b".join(chr(i) for i in range(31, -1, -1)), 1500])
    yield c("cjk", ["漢字仮名交じり文の長い長い段落。", 3000])
    yield c("emoji", ["👨‍👩‍👧‍👦🏳️‍🌈", 2000])
    yield c("marks", ["▁a ▁ b▁", 8000])
    yield c("byte names", ["<0x00><0x01> <0x0A>", 4000])
    yield c("mixed", ["letters", 20000], [" ", 20000], ["漢字", 9000], ["letters", 20000], ["\n", 20000], ["a\0 <s>", 5000])


def huge():
    c = lambda name, *parts: {"name": name, "parts": [list(p) for p in parts], "huge": True}
    yield c("10 MB of letters", ["letters", 10 * MB])
    yield c("10 MB of spaces", [" ", 10 * MB])
    yield c("10 MB of sentences", ["The quick brown fox jumps over the lazy dog. ", 10 * MB // 45])
    yield c("10 MB with NULs", ["no\0space\0at\0all", 10 * MB // 15])


def make_bytelevel(path):
    """A small byte-level BPE (the other family of BPE definitions), trained here."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=["<|endoftext|>", "<s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    t.train_from_iterator([open(os.path.abspath(__file__)).read()], trainer)
    t.save(path)


def main():
    import duckdb
    rows = duckdb.sql(f"select text from read_parquet('{ROOT}/examples/demo/corpus/*.parquet')").fetchall()
    demo = [r[0] for r in rows if r[0] is not None]
    with open(os.path.join(HERE, "demo_texts.json.gz"), "wb") as f, gzip.GzipFile(fileobj=f, mode="wb", mtime=0, filename="") as z:
        z.write(json.dumps(demo, ensure_ascii=False).encode())
    path = os.path.join(HERE, "bytelevel.json")
    if not os.path.exists(path):
        make_bytelevel(path)

    cases = [*small(), *long(), *huge()]
    out = {"library": f"tokenizers {tokenizers.__version__}", "cases": cases, "ids": {}}

    def put(tok, text):
        ids = tok.encode(text, add_special_tokens=False).ids
        if len(ids) <= 600:
            return ids
        a = array.array("i", ids)
        assert a.itemsize == 4 and sys.byteorder == "little"
        return {"n": len(ids), "sha256": hashlib.sha256(a.tobytes()).hexdigest()}

    for name, file in FILES.items():
        tok = tokenizers.Tokenizer.from_file(os.path.join(ROOT, file))
        for mode in ("text", "parse"):
            tok.encode_special_tokens = mode == "text"
            key = f"{name} {mode}"
            out["ids"][key] = {"cases": [None if c.get("huge") and (mode == "parse" or name == "bytelevel") else put(tok, text_of(c)) for c in cases],
                               "demo": [put(tok, t) if i < 4 else put_hash(tok, t) for i, t in enumerate(demo)]}
            print(key, file=sys.stderr)
    with open(os.path.join(HERE, "ids.json"), "w") as f:
        json.dump(out, f, separators=(",", ":"))
        f.write("\n")


def put_hash(tok, text):
    ids = tok.encode(text, add_special_tokens=False).ids
    return {"n": len(ids), "sha256": hashlib.sha256(array.array("i", ids).tobytes()).hexdigest()}


if __name__ == "__main__":
    main()
