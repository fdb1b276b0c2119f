//! Pictures as files.
use super::Picture;
use image::codecs::jpeg::JpegEncoder;
use pentimento_runtime::{Error, Result};
use png::{BitDepth, ColorType, Compression, Encoder, EncodingError};

impl Picture {
    /// The picture as the bytes of a PNG file.
    ///
    /// # Errors
    /// A failure of the encoder.
    pub fn to_png(&self) -> Result<Vec<u8>> {
        self.to_png_with(&[])
    }

    /// As [`Picture::to_png`], with texts by their keywords, as other tools read and write them: in a `tEXt` chunk what ASCII has, in an `iTXt`
    /// chunk anything else (of `tEXt`, which is Latin-1 by PNG, ComfyUI makes UTF-8).
    ///
    /// # Errors
    /// A keyword that PNG does not have; a failure of the encoder.
    pub fn to_png_with(&self, texts: &[(&str, &str)]) -> Result<Vec<u8>> {
        self.encoded(texts).map_err(|e| Error::bad("PNG", "an image that can be encoded", e.to_string()))
    }
    fn encoded(&self, texts: &[(&str, &str)]) -> core::result::Result<Vec<u8>, EncodingError> {
        let mut bytes = Vec::new();
        let mut encoder = Encoder::new(&mut bytes, self.width, self.height);
        encoder.set_color(ColorType::Rgb);
        encoder.set_depth(BitDepth::Eight);
        encoder.set_compression(Compression::Fast);
        for (keyword, text) in texts {
            let (keyword, text) = (keyword.to_string(), text.to_string());
            match text.is_ascii() && !text.contains('\0') {
                true => encoder.add_text_chunk(keyword, text)?,
                false => encoder.add_itxt_chunk(keyword, text.replace('\0', " "))?,
            }
        }
        let mut writer = encoder.write_header()?;
        writer.write_image_data(&self.rgb)?;
        writer.finish()?;
        Ok(bytes)
    }

    /// The picture as the bytes of a JPEG file of `quality` 1 to 100.
    ///
    /// # Errors
    /// A failure of the encoder.
    pub fn to_jpeg(&self, quality: u8) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let size = (self.width, self.height, image::ExtendedColorType::Rgb8);
        JpegEncoder::new_with_quality(&mut bytes, quality)
            .encode(&self.rgb, size.0, size.1, size.2)
            .map_err(|e| Error::bad("JPEG", "an image that can be encoded", e.to_string()))?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_kept_in_the_chunk_that_takes_them() {
        let picture = Picture::new(2, 1, vec![1, 2, 3, 4, 5, 6]).unwrap();
        for (text, chunk) in [
            ("a cafe\nSteps: 2", "tEXt"),
            ("a caf\u{e9}", "iTXt"),
            ("\u{540d}\u{524d} \u{1f34b}", "iTXt"),
            ("a\0b", "iTXt"),
        ] {
            let bytes = picture.to_png_with(&[("parameters", text)]).unwrap();
            assert!(bytes.windows(4).any(|w| w == chunk.as_bytes()), "{text}");
            let read = png::Decoder::new(std::io::Cursor::new(&bytes)).read_info().unwrap();
            let info = read.info();
            let latin = info.uncompressed_latin1_text.first().map(|t| (t.keyword.clone(), t.text.clone()));
            let found = latin.unwrap_or_else(|| {
                let t = &info.utf8_text[0];
                (t.keyword.clone(), t.get_text().unwrap())
            });
            assert_eq!(found, ("parameters".to_string(), text.replace('\0', " ")));
            assert_eq!(Picture::decode("a", &bytes).unwrap(), picture);
        }
        assert!(picture.to_png_with(&[("", "no keyword")]).is_err());
        let jpeg = picture.to_jpeg(90).unwrap();
        assert_eq!(Picture::decode("a", &jpeg).unwrap().width(), 2);
    }
}
