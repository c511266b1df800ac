//! The attributes `#[protection_domain]` and `#[root_task]`.
//!
//! Both only need the function's name and hand the rest, unread, to a declarative macro of the runtime crate, so there is
//! no parser of Rust here and nothing to depend on.

use proc_macro::{TokenStream, TokenTree};

/// Makes a function the initialiser of a protection domain: it returns the domain's `Handler`.
///
/// Arguments: `stack_size = EXPR` (a stack of the program's own; otherwise Microkit's is used), `heap_size = EXPR`.
#[proc_macro_attribute]
pub fn protection_domain(attr: TokenStream, item: TokenStream) -> TokenStream {
    declare("::sel4_microkit::declare_protection_domain!", "init", attr, item)
}

/// Makes a function the root task's main function.
///
/// Arguments: `stack_size = EXPR`.
#[proc_macro_attribute]
pub fn root_task(attr: TokenStream, item: TokenStream) -> TokenStream {
    declare("::sel4_root_task::declare_root_task!", "main", attr, item)
}

fn declare(declaration: &str, key: &str, attr: TokenStream, item: TokenStream) -> TokenStream {
    let Some(name) = function_name(item.clone()) else {
        return error("this attribute belongs on a function");
    };
    let text = format!("{declaration} {{ {key} = {name}, {attr} }}");
    let Ok(mut output) = text.parse::<TokenStream>() else {
        return error("expected `name = expression` arguments");
    };
    output.extend(item);
    output
}

/// The identifier after the first `fn` outside brackets.
fn function_name(item: TokenStream) -> Option<String> {
    let mut tokens = item.into_iter();
    tokens.find(|token| matches!(token, TokenTree::Ident(ident) if ident.to_string() == "fn"))?;
    match tokens.next()? {
        TokenTree::Ident(name) => Some(name.to_string()),
        _ => None,
    }
}

fn error(message: &str) -> TokenStream {
    format!("compile_error!({message:?});").parse().unwrap_or_default()
}
