package malformed

import "maps"

const twoVersions = "; index and files belong to different versions: download both again"

// whole are the files of a good single-file checkpoint.
func whole(text object, list []tensor) map[string][]byte {
	return map[string][]byte{"config.json": wrap(text).json(), "model.safetensors": pack(list)}
}

// sharded are the files of a checkpoint of two shards.
func sharded(text object, a, b []tensor, index object) map[string][]byte {
	return map[string][]byte{"config.json": wrap(text).json(), shardA: pack(a), shardB: pack(b), "model.safetensors.index.json": index.json()}
}

// plus gives files with one more; nil content removes one.
func plus(files map[string][]byte, name string, content []byte) map[string][]byte {
	n := maps.Clone(files)
	if n[name] = content; content == nil {
		delete(n, name)
	}
	return n
}

// indexes are sharded checkpoints with something wrong between index and shards.
func indexes() []Case {
	var list []Case
	add := func(name, why, want string, files map[string][]byte, links map[string]string) {
		list = append(list, Case{Name: "malformed/index/" + name, Why: why, Want: want, Files: files, Links: links})
	}
	text := tinyText()
	all := weights(text, prefix)
	a, b, index := split(all)
	good := sharded(text, a, b, index)
	shards := index["weight_map"].(object)
	first := all[0].name // in shard A
	moved := func(tensor, shard string) []byte {
		return index.with("weight_map", shards.with(tensor, shard)).json()
	}
	const at = "PATH/model.safetensors.index.json: "
	entry := at + `weight_map["` + first + `"]: `
	outside := ", want the name of a file in the same folder; do not use this index: a shard must lie beside it"

	for _, c := range []struct{ name, shard, shown, why string }{
		{"dot-dot", "../outside.safetensors", `"../outside.safetensors"`, "a path that leaves the folder"},
		{"dot-dot-inside", "x/../../outside.safetensors", `"x/../../outside.safetensors"`, "the same, hidden"},
		{"absolute", "/outside.safetensors", `"/outside.safetensors"`, "a path from the root"},
		{"drive", `C:\outside.safetensors`, `"C:\\outside.safetensors"`, "a path from the root, on Windows"},
		{"not-safetensors", "config.json", `"config.json"`, "another file as a shard"},
		{"empty-name", "", `""`, "a shard without a name"},
	} {
		add(c.name, c.why, entry+"found "+c.shown+outside, plus(good, "model.safetensors.index.json", moved(first, c.shard)), nil)
	}
	add("symlink", "a symlink that leaves the folder, to a file that could be read",
		"PATH/"+shardB+": found a symlink that leads out of the folder, want a file inside it; put the file itself there, or name the folder it is in",
		plus(good, shardB, nil), map[string]string{shardB: "../missing-shard/" + shardA})
	add("missing-shard", "a partial download", at+"weight_map: found 1 of 2 files missing: "+shardB+", want all of them in the folder; the download is not complete: download the missing files",
		plus(good, shardB, nil), nil)
	add("in-two-shards", "which of them counts?", "PATH/"+shardB+`: tensor "`+first+`": found the tensor in PATH/`+shardA+" too, want it in one file; files of different versions are mixed: download the checkpoint again",
		sharded(text, a, append([]tensor{a[0]}, b...), index), nil)
	add("in-none", "a tensor that no file holds", entry+`found a tensor that "`+shardA+`" does not hold, want the file that holds it`+twoVersions,
		sharded(text, a[1:], b, index), nil)
	add("elsewhere", "index and shard disagree", "PATH/"+shardA+`: tensor "`+first+`": found a tensor that the index places in "`+shardB+`", want it in that file only`+twoVersions,
		plus(good, "model.safetensors.index.json", moved(first, shardB)), nil)
	add("unlisted", "a tensor the index does not know", "PATH/"+shardB+`: tensor "`+b[0].name+`": found a tensor that the index does not list, want an entry in model.safetensors.index.json`+twoVersions,
		plus(good, "model.safetensors.index.json", index.with("weight_map", shards.with(b[0].name, drop)).json()), nil)
	add("no-weight-map", "an index of nothing", at+"weight_map: found nothing, want tensor names with their files; download the file again",
		plus(good, "model.safetensors.index.json", index.with("weight_map", drop).json()), nil)
	add("duplicate-key", "two files for one name", at+`byte 57: found the key "a" a second time, want each key once; download the file again`,
		plus(good, "model.safetensors.index.json", []byte(`{"weight_map": {"a": "model-00001-of-00002.safetensors", "a": "`+shardB+`"}}`)), nil)
	add("not-json", "a saved web page", at+"byte 0: found '<', want an object; download the file again", plus(good, "model.safetensors.index.json", []byte("<html>")), nil)
	add("lfs-pointer", "Git LFS was not installed", at+"found a Git LFS pointer, want the file itself; run `git lfs pull` in the folder it came from, or download the file again",
		plus(good, "model.safetensors.index.json", []byte(lfs)), nil)
	add("and-single", "two sets of weights in one folder", "PATH: found model.safetensors and model.safetensors.index.json, want one of them; remove the one that does not belong to this model; sibyl does not guess",
		plus(good, "model.safetensors", pack(all)), nil)
	return list
}

// folders are checkpoints whose parts do not fit together, and folders that are none.
func folders() []Case {
	var list []Case
	add := func(name, why, want string, files map[string][]byte) {
		list = append(list, Case{Name: "malformed/checkpoint/" + name, Why: why, Want: want, Files: files})
	}
	text := tinyText()
	all := weights(text, prefix)
	good := whole(text, all)
	tied := text.with("tie_word_embeddings", true)
	moe := tinyMoE()
	experts := weights(moe, prefix)
	const (
		st      = "PATH/model.safetensors: "
		q       = prefix + "layers.1.self_attn.q_proj.weight"
		missing = ", want every tensor the config asks for; the checkpoint is not complete, or config.json belongs to another model: download it again"
		want    = ", want config.json and safetensors files; "
		aFolder = "give the folder of a Hugging Face checkpoint"
	)
	add("lfs-weights", "Git LFS was not installed", st+"found a Git LFS pointer, want the file itself; run `git lfs pull` in the folder it came from, or download the file again",
		plus(good, "model.safetensors", []byte(lfs)))
	full := good["model.safetensors"]
	add("truncated-weights", "a cut download", st+`header, tensor "lm_head.weight" data_offsets: found [4956, 5436], want an end of at most 5336, the bytes the file holds after its header`+cut,
		plus(good, "model.safetensors", full[:len(full)-100]))
	add("missing-one", "a partial bundle", "PATH: tensors: found 1 missing: "+q+missing, whole(text, without(all, q)))
	add("missing-many", "all are named at once, five in full", "PATH: tensors: found 14 missing: "+prefix+"layers.0.input_layernorm.weight, "+prefix+"layers.0.linear_attn.in_proj_qkv.weight, "+prefix+
		"layers.0.linear_attn.in_proj_z.weight, "+prefix+"layers.0.linear_attn.in_proj_b.weight, "+prefix+"layers.0.linear_attn.in_proj_a.weight and 9 more"+missing,
		whole(text, append(all[:2:2], all[16:]...)))
	add("no-embedding", "an adapter, or a part of a model", "PATH: tensor names: found 1 tensors and no embedding (such as \"base_model.model.lora_A.weight\"), want "+prefix+"embed_tokens.weight, or with the prefix model. or none; is this a whole Qwen3.5-family checkpoint, not an adapter or a single part of one?",
		whole(text, []tensor{bf16("base_model.model.lora_A.weight", []int{2, 2})}))
	add("two-models", "which of them is meant?", `PATH: tensor names: found embeddings under the prefixes ["model.language_model." "model."], want one text model; use the original checkpoint; sibyl does not guess which model is meant`,
		whole(text, append(all[:len(all):len(all)], bf16("model.embed_tokens.weight", []int{20, 12}))))
	add("wrong-shape", "config and weights of different models", st+`tensor "`+q+`" shape: found [12 32], want [32 12] by config.json; config.json and weights belong to different models, or the file was converted for another program`,
		whole(text, edit(all, q, func(t *tensor) { t.shape = []int{12, 32} })))
	add("dtype-in-use", "8-bit floats mean nothing without their scales", st+`tensor "`+q+`" dtype: found "F8_E4M3", want F32, F16 or BF16; use the unquantized checkpoint; sibyl quantizes by itself`,
		whole(text, edit(all, q, func(t *tensor) { t.dtype, t.data = "F8_E4M3", t.data[:len(t.data)/2] })))
	add("dtype-integer", "integers are no weights", st+`tensor "`+q+`" dtype: found "I16", want F32, F16 or BF16; use the unquantized checkpoint; sibyl quantizes by itself`,
		whole(text, edit(all, q, func(t *tensor) { t.dtype = "I16" })))
	add("tied-head-differs", "two tables are two models", st+"tensor lm_head.weight: found other bytes than "+prefix+"embed_tokens.weight, want the same, because tie_word_embeddings is true; set tie_word_embeddings to false in config.json if the head is one of its own, or remove the tensor",
		whole(tied, all))
	add("untied-no-head", "transformers would make a random head", "PATH: tensors: found 1 missing: lm_head.weight, want every tensor the config asks for; tie_word_embeddings is false: set it to true only if the original model ties its head",
		whole(text, without(all, "lm_head.weight")))
	single := singleExperts(experts, 0)
	add("expert-missing", "one of many", "PATH: tensors: found 1 missing: "+prefix+"layers.0.mlp.experts.2.up_proj.weight"+missing, whole(moe, without(single, prefix+"layers.0.mlp.experts.2.up_proj.weight")))
	add("experts-in-both-forms", "which of them counts?", "PATH: layer 0 experts: found packed and single tensors, want one form; use the original checkpoint; sibyl does not guess which of them counts",
		whole(moe, append(without(single, experts[0].name), experts[0], named(experts, prefix+"layers.0.mlp.experts.gate_up_proj"))))
	add("expert-dtypes", "one kernel reads all experts of a layer", st+`tensor "`+prefix+`layers.0.mlp.experts.1.down_proj.weight" dtype: found F16, want BF16 as expert 0 has; convert the experts of a layer to one dtype`,
		whole(moe, edit(single, prefix+"layers.0.mlp.experts.1.down_proj.weight", func(t *tensor) { t.dtype = "F16" })))
	add("no-weights", "a partial download", "PATH: found config.json and no weights, want model.safetensors or model.safetensors.index.json; download the safetensors files too",
		map[string][]byte{"config.json": good["config.json"], "README.md": []byte("x")})
	add("no-index", "shards without their index", "PATH: found the weights \""+shardA+"\" and no index, want model.safetensors or model.safetensors.index.json; rename a single file to model.safetensors, or download the index of several",
		map[string][]byte{"config.json": good["config.json"], shardA: good["model.safetensors"]})
	add("pytorch-weights", "weights that run code when they are read", "PATH: found config.json and \"pytorch_model.bin\", want model.safetensors or model.safetensors.index.json; sibyl reads safetensors only: download or convert the weights",
		map[string][]byte{"config.json": good["config.json"], "pytorch_model.bin": []byte("PK")})
	add("no-config", "weights alone", `PATH: found safetensors files without config.json ("model.safetensors")`+want+"copy config.json from the base model beside them",
		map[string][]byte{"model.safetensors": full})
	add("gguf", "another program's format", `PATH: found a GGUF file ("m.gguf")`+want+"sibyl reads the checkpoint it was made from: give that folder", map[string][]byte{"m.gguf": []byte("GGUF")})
	add("something-else", "any other folder", `PATH: found 1 other entries ("notes.txt", ...)`+want+aFolder, map[string][]byte{"notes.txt": []byte("x")})
	add("bundle.aimodel", "known, and not of this build", "PATH: found an .aimodel, want a checkpoint's folder; give the checkpoint that it was converted from",
		map[string][]byte{"main.mlirb": []byte("ML\xefR")})
	add("language-bundle", "known, and not of this build", "PATH: found a LanguageBundle, want a checkpoint's folder; give the checkpoint that it was converted from",
		map[string][]byte{"metadata.json": []byte(`{"kind":"llm"}`)})
	return list
}

// named finds a tensor.
func named(list []tensor, name string) tensor {
	for _, t := range list {
		if t.name == name {
			return t
		}
	}
	panic("no tensor " + name) // a fault of this package's tables
}
