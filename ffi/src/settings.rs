//! Settings by name.
use crate::context::pmt_context;
use crate::guard::{
    Failure, Handle, Result, exclusive, guard, optional_text, place, record, text, text_into,
};
use crate::handles::{forget, keep};
use crate::shared::Shared;
use crate::types::{pmt_setting, pmt_status};
use pentimento_trainer::settings::{self, Settings};
use std::ffi::{CString, c_char};
use std::ptr::null_mut;
use std::sync::{Arc, LazyLock, Mutex};

/// Settings of a training.
pub struct pmt_settings {
    shared: Arc<Shared>,
    settings: Mutex<Settings>,
}

impl Handle for pmt_settings {
    fn shared(&self) -> &Shared {
        &self.shared
    }
}

/// What a handle stands for, or the recommended settings for NULL.
pub fn chosen(settings: *const pmt_settings) -> Result<Settings> {
    if settings.is_null() {
        return Ok(Settings::recipe("default", false)?);
    }
    let wrong = || Failure::argument("settings", "a live handle of settings, or NULL", "another");
    let found = crate::handles::find(settings).ok_or_else(wrong)?;
    let settings = exclusive(&found.settings, "settings")?.clone();
    settings.check().map_err(Failure::Argument)?;
    Ok(settings)
}

/// Makes the settings of a recipe: "pathwise", "grpo", "flow-grpo", "nft", "sft", "released"; of a preset, as GPUs have it: "quick", "balanced",
/// "thorough", "official"; or NULL for the recommended ones. Returns at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmt_settings_new(
    context: *const pmt_context,
    recipe: *const c_char,
    settings: *mut *mut pmt_settings,
) -> pmt_status {
    guard!(context => settings, {
        // SAFETY: the rules in the header.
        let (settings, recipe) = unsafe {
            (place(settings, "settings", null_mut())?, optional_text(recipe, "recipe")?)
        };
        let made = Settings::named(recipe.unwrap_or("default"), false).map_err(Failure::Argument)?;
        *settings = keep(pmt_settings { shared: context.0.clone(), settings: Mutex::new(made) });
        Ok(())
    })
}

/// Frees settings. Trainings made with them keep theirs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmt_settings_free(settings: *mut pmt_settings) {
    guard!(_, {
        forget(settings);
        Ok(())
    });
}

/// Sets the setting of a name, such as "optim.rate", to what a text says: numbers, "true" and "false", names, sizes such as "6GB", colours
/// such as "#ffffff", "none". What cannot be changes nothing. Returns at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmt_settings_set(
    settings: *mut pmt_settings,
    name: *const c_char,
    value: *const c_char,
) -> pmt_status {
    guard!(settings, {
        // SAFETY: the rules in the header.
        let (name, value) = unsafe { (text(name, "name")?, text(value, "value")?) };
        exclusive(&settings.settings, "settings")?.set(name, value).map_err(Failure::Argument)
    })
}

/// Copies the text of the setting of a name, which `pmt_settings_set` takes for the same value, as `pmt_error_message` copies its
/// sentence; `needed` gets its length with the final 0, and may be NULL. Returns at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmt_settings_get(
    settings: *const pmt_settings,
    name: *const c_char,
    buffer: *mut c_char,
    len: usize,
    needed: *mut usize,
) -> pmt_status {
    guard!(settings, {
        // SAFETY: the rules in the header.
        let name = unsafe { text(name, "name")? };
        settings::find(name).map_err(Failure::Argument)?;
        let value = exclusive(&settings.settings, "settings")?.get(name).unwrap_or_default();
        // SAFETY: the rules in the header.
        let whole = unsafe { text_into(&value, buffer, len, "buffer")? };
        if !needed.is_null() {
            // SAFETY: the rules in the header.
            unsafe { *place(needed, "needed", 0)? = whole + 1 };
        }
        Ok(())
    })
}

/// Whether these settings can work together; a training asks the same. Returns at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmt_settings_check(settings: *const pmt_settings) -> pmt_status {
    guard!(settings, { exclusive(&settings.settings, "settings")?.check().map_err(Failure::Argument) })
}

/// Describes the setting of an index, from 0; PMT_STATUS_MISSING beyond the last one. `size` is `sizeof(pmt_setting)`. Returns at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmt_settings_describe(
    index: u32,
    setting: *mut pmt_setting,
    size: usize,
) -> pmt_status {
    guard!(_, {
        // SAFETY: the rules in the header.
        let setting = unsafe { record(setting, size, "setting")? };
        let all = described();
        let [name, expected, unit, about, source] = all
            .get(index as usize)
            .ok_or_else(|| runtime::Error::missing("settings", format!("one of index {index}")))?
            .each_ref()
            .map(|text| text.as_ptr());
        setting.fill(&pmt_setting { name, expected, unit, about, source });
        Ok(())
    })
}

/// Texts of all settings, made once and never freed.
fn described() -> &'static [[CString; 5]] {
    static ALL: LazyLock<Vec<[CString; 5]>> = LazyLock::new(|| {
        let text = |text: &str| CString::new(text).unwrap_or_default();
        let one = |s: &settings::Setting| {
            [text(s.name), text(&s.expected()), text(s.unit), text(s.about), text(&s.source.to_string())]
        };
        settings::list().iter().map(one).collect()
    });
    &ALL
}
