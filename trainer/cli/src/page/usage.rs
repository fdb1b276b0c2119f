//! How other programs load the adapter, to be copied.
use super::record::Record;
use crate::out::ADAPTER;
use maud::{Markup, html};

/// A text between quotes of Python or JSON.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
/// A text as one word of a shell.
fn word(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// The sections' snippets.
pub fn all(record: &Record) -> Markup {
    let prompts = record.prompts();
    let prompt = prompts.first().filter(|p| !p.is_empty()).map_or("a prompt", String::as_str);
    let model = match record.text("model") {
        m if m.is_empty() => "MODEL".to_string(),
        m => m,
    };
    let stem = ADAPTER.trim_end_matches(".safetensors");
    let [seed, guidance] =
        [("seed", 0.0), ("guidance", 4.5)].map(|(key, usual)| record.drawn(key).unwrap_or(usual));
    let [width, height] = record.size().unwrap_or([1024, 1024]);
    let single = [".safetensors", ".gguf"].iter().any(|end| model.to_lowercase().ends_with(end));
    let load = if single { "from_single_file" } else { "from_pretrained" };
    let none = if record.has_t5() == Some(false) { ", text_encoder_3=None, tokenizer_3=None" } else { "" };
    let (model_py, prompt_py) = (quoted(&model), quoted(prompt));
    let diffusers = format!(
        "import torch\nfrom diffusers import StableDiffusion3Pipeline\n\n\
         pipe = StableDiffusion3Pipeline.{load}(\n    {model_py}{none}, torch_dtype=torch.float16\n).to(\"cuda\")\n\
         pipe.load_lora_weights(\".\", weight_name=\"{ADAPTER}\")  # from this folder\n\
         image = pipe(\n    {prompt_py}, num_inference_steps=28, guidance_scale={guidance},\n    width={width}, height={height},\n    \
         generator=torch.Generator(\"cpu\").manual_seed({seed:.0}),\n).images[0]\nimage.save(\"picture.png\")"
    );
    let comfy = format!("cp {ADAPTER} ComfyUI/models/loras/{}.safetensors", slug(&record.name));
    let node = format!(
        "{{\"class_type\": \"LoraLoaderModelOnly\",\n \"inputs\": {{\"model\": [\"1\", 0],\n  \"lora_name\": \"{}.safetensors\", \"strength_model\": 1.0}}}}",
        slug(&record.name)
    );
    let cpp = format!(
        "sd-cli -m sd3.5_medium.safetensors \\\n  --clip_l clip_l.safetensors --clip_g clip_g.safetensors \\\n  --t5xxl t5xxl_fp16.safetensors \\\n  \
         --lora-model-dir . -p {} \\\n  --steps 28 --cfg-scale {guidance} --sampling-method euler \\\n  -W {width} -H {height} -s {seed:.0} -o picture.png",
        word(&format!("{prompt} <lora:{stem}:1>"))
    );
    let own = format!(
        "pentimento generate --model {} --adapter {ADAPTER} \\\n  --prompt {} --out pictures",
        word(&model),
        word(prompt)
    );
    html! {
        h3 { "This tool" } pre { code { (own) } }
        h3 { "diffusers" } pre { code { (diffusers) } }
        h3 { "ComfyUI" }
        p { "ComfyUI and stable-diffusion.cpp load SD3 and SD3.5 checkpoints only, no smaller models of that family." }
        pre { code { (comfy) } }
        p { "Then put the node " em { "LoraLoaderModelOnly" } " between the model's loader (here node 1) and the sampler:" }
        pre { code { (node) } }
        h3 { "stable-diffusion.cpp" }
        p { "With your own model's files in place of these:" }
        pre { code { (cpp) } }
    }
}

/// A text as a part of a file's name: small letters and digits with hyphens between.
pub fn slug(text: &str) -> String {
    let mut name = String::new();
    for c in text.chars().flat_map(char::to_lowercase) {
        if c.is_alphanumeric() {
            name.push(c);
        } else if !name.ends_with('-') && !name.is_empty() {
            name.push('-');
        }
        if name.chars().count() >= 40 {
            break;
        }
    }
    let name = name.trim_end_matches('-');
    if name.is_empty() { "picture".into() } else { name.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stay_words() {
        assert_eq!(word("it's `$(x)`"), r"'it'\''s `$(x)`'");
        assert_eq!(quoted("a \"b\"\n"), r#""a \"b\"\n""#);
        assert_eq!(slug("A <script> of ../etc, é 名前!"), "a-script-of-etc-é-名前");
        assert_eq!((slug("..//"), slug(&"x y".repeat(99)).chars().count()), ("picture".into(), 40));
    }
}
