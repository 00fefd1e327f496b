# escape=`
# check=skip=JSONArgsRecommended;error=false
FROM alpine
RUN one `
   two
COPY c:\x\y \z
CMD x
