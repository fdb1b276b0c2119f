// What an invocation moves at a time: ITEM neighbouring numbers, 1 or 4.
//@ if ITEM == 4
alias Item = vec4<f32>;
//@ else
alias Item = f32;
//@ end
